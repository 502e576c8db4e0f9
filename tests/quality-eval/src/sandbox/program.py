# Assembles a program from the blocks of a model's reply. Only Python can say what is Python, so this runs in the sandbox,
# before any of the program does; nothing here executes what it reads.
import __future__, ast, html, json, re, textwrap

NOT_PYTHON = {"bash", "sh", "shell", "zsh", "console", "terminal", "text", "txt", "plaintext", "output", "json", "yaml",
              "toml", "markdown", "md", "javascript", "js", "java", "c", "cpp", "rust", "sql", "mermaid", "latex"}
SPACES = dict.fromkeys(map(ord, "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"), " ")
INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060\u00ad"))
QUOTES = dict(zip(map(ord, "“”„‟‘’‚‛"), '""""\'\'\'\''))
STATEMENT = re.compile(r"\s*(def |class |async def |import \w|from [\w.]+ import |return\b(?! the\b)|raise \w|pass$|yield\b"
                       r"|(for|while|if|elif|with|match|async) .*:|del \w|global \w|(else|try|finally|except\b.*):|assert |@\w"
                       r"|[\w.\[\], '\"]+(: ?[\w\[\], .]+)? ?[-+*/%&|^]?= ?\S|[\w.]+\(.*\)$)")


class NoCode(Exception):
    """The reply has no code in it."""


def parsed(text):
    """The statements of a text; SyntaxError where it is not Python."""
    try:
        return ast.parse(text).body
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error))


def characters(text):
    """The text, then with the characters replaced that editors, pages and chat windows put in the place of Python's."""
    plain = text.translate(SPACES).translate(INVISIBLE)
    tabs = [re.sub(r"(?m)^[ \t]+", lambda blank: blank[0].replace("\t", " " * width), plain) for width in (4, 8)]
    yield from (text, plain, *tabs, plain.translate(QUOTES), html.unescape(plain), html.unescape(plain).translate(QUOTES))


def stripped(text, pattern):
    """The text without a mark that every line begins with, or None."""
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and all(re.match(pattern, line) for line in lines):
        return re.sub(f"(?m)^(?:{pattern})", "", text)
    return None


def json_strings(text):
    """The texts in a reply that is JSON, the longest first."""
    try:
        inner, found = [json.loads(text)], []
    except (ValueError, RecursionError):
        return []
    while inner:
        value = inner.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, (list, dict)):
            inner.extend(value.values() if isinstance(value, dict) else value)
            if isinstance(value, list) and all(isinstance(line, str) for line in value):
                found.append("".join(value))  # The lines of a notebook's cell.
    return sorted(found, key=len, reverse=True)


def run_of_code(text):
    """The lines from the first indented statement to the next words at the margin, as they stand."""
    lines = text.split("\n")
    for first, line in enumerate(lines):
        if STATEMENT.match(line):
            if not line[:1].isspace():
                return None  # What follows is part of it.
            inset = line[: len(line) - len(line.lstrip())]
            rest = range(first, len(lines))
            last = next((at for at in rest if lines[at].strip() and not lines[at].startswith(inset)), len(lines))
            if last < len(lines) and lines[last][:1] in " \t":
                return None  # A line between the margins is a mistake, and not to be cut off.
            return "\n".join(lines[first:last]) + "\n"
    return None


def shapes(text):
    """The text, then what it may be a copy of: a session, a patch, a quotation, a listing, a JSON string."""
    yield text
    first = next((line for line in text.split("\n") if line.strip()), "")
    inset = first[: len(first) - len(first.lstrip())]
    if inset:
        yield re.sub(f"(?m)^{inset}", "", text)
    run = run_of_code(text)
    if run:
        yield textwrap.dedent(run)
    for pattern in (r"(?:>>>|\.\.\.)(?: |$)", r"> ?", r"\s*\d+\s*[|:.)]? ?"):
        yield stripped(text, pattern)
    added = [line for line in text.split("\n") if not line.startswith(("-", "@@", "diff ", "index ", "+++"))]
    if any(line.startswith("+") for line in added) and all(line[:1] in ("+", " ", "") for line in added):
        yield "\n".join(line[1:] for line in added)
    if "\n" not in text.strip() and "\\n" in text:
        yield text.replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")
    if "\\_" in text:
        yield text.replace("\\_", "_")  # Markdown's escapes.
    yield from json_strings(text)


def versions(text):
    for shape in shapes(text):
        if shape and shape.strip():
            yield from dict.fromkeys(characters(shape))


def pieces(text):
    """The statements of a text that is Python in parts: with prose between, or cut off. A part begins and ends at the
    margin, so that a function with an error in it is left out whole."""
    lines, statements = text.split("\n"), []
    margins = [at for at, line in enumerate(lines) if line[:1].strip()] + [len(lines)]
    start = 0
    while start < len(margins) - 1:
        if not (STATEMENT.match(lines[margins[start]]) or lines[margins[start]][0] in "@#\"'([{"):
            start += 1
            continue
        end, begin = len(margins) - 1, margins[start]
        while end > start:
            try:
                statements += parsed("\n".join(lines[begin:margins[end]]) + "\n")
                break
            except SyntaxError as error:
                at = begin + max((error.lineno or 1) - 1, 0)
                end = min(end - 1, max((index for index in range(len(margins)) if margins[index] <= at), default=start))
        start = max(end, start + 1)
    return statements


def inner_statements(statements):
    """Statements that run when the module does, those in branches and loops too."""
    for statement in statements:
        yield statement
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for field in ("body", "orelse", "finalbody", "handlers"):
                yield from inner_statements(getattr(statement, field, []))


def bound(statements):
    """The names that a module binds."""
    names = set()
    for statement in inner_statements(statements):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            names |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names


def is_stub(statement):
    """Returns whether a definition has no body of its own."""
    def is_empty(inner):
        raised = getattr(inner, "exc", None)
        return (isinstance(inner, ast.Pass) or isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant)
                or isinstance(inner, ast.Raise) and "NotImplemented" in ast.dump(raised or inner))

    return isinstance(statement, ast.FunctionDef) and all(map(is_empty, statement.body))


def without_stubs(statements):
    """Leaves out signatures of what is defined in full elsewhere."""
    full = {each.name for each in statements if isinstance(each, ast.FunctionDef) and not is_stub(each)}
    return [each for each in statements if not (is_stub(each) and each.name in full)]


def has_entities(statements):
    """Returns whether an HTML escape was read as a name: `a &lt; b` is Python, too."""
    names = {node.id for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return bool(names & {"lt", "gt", "amp", "quot"})


def best(text, entry_point):
    """The statements of the version of a block that defines the function, else of the first that is Python."""
    first = None
    for read in (parsed, pieces):
        for version in versions(text):
            try:
                statements = read(version)
            except SyntaxError:
                continue
            if not statements or has_entities(statements) and html.unescape(version) != version:
                continue
            if entry_point is None or entry_point in bound(statements) or method_owner(statements, entry_point):
                return statements
            first = first or statements
    return first or []


def method_owner(statements, name):
    """The class that has the function as a method."""
    for statement in reversed(statements):
        if isinstance(statement, ast.ClassDef):
            if any(isinstance(inner, ast.FunctionDef) and inner.name == name for inner in statement.body):
                return statement.name
    return None


def defining(statements, name):
    """Statements that define the function, or None; a method of a class without arguments will do."""
    statements = without_stubs(statements)
    if name is None and statements or name in bound(statements):
        return statements
    owner = method_owner(statements, name)
    return [*statements, *parsed(f"{name} = {owner}().{name}")] if owner else None


def bodies(text):
    """Readings of a text as what goes on inside a function: statements of the body, then those after the function."""
    for shape in filter(None, (text, run_of_code(text))):
        for version in dict.fromkeys(characters(shape)):
            version = version.strip("\n")
            lines = version.split("\n")
            if version[:1] in " \t":
                variants = [version]
            else:
                margins = [at for at in range(1, len(lines)) if lines[at][:1].strip() and not lines[at - 1].strip()]
                ends = [len(lines), *reversed(margins[-40:])]
                variants = [f"    {version}", *(textwrap.indent("\n".join(lines[:end]), "    ") for end in ends)]
            for variant in variants:
                statements = pieces(f"def body():\n{variant}\n")
                if statements and getattr(statements[0], "name", "") == "body":
                    inner = statements[0].body
                    if not all(isinstance(each, ast.Expr) and not isinstance(each.value, ast.Call) for each in inner):
                        yield inner, statements[1:]


def returns(program):
    """Returns whether the completed function has an end of its own."""
    ends = (ast.Return, ast.Yield, ast.YieldFrom, ast.Raise)
    return any(isinstance(node, ends) for each in program if hasattr(each, "completed") for node in ast.walk(each))


def completions(texts, prompt):
    """The prompt with each reading of each text as its function's body, and the imports of the others."""
    for text in texts:
        for body, after in bodies(text):
            completed = prompt.completed(body, after)
            if completed:
                others = (each for other in texts if other != text for each in best(other, None))
                yield [each for each in others if isinstance(each, (ast.Import, ast.ImportFrom))] + completed


class Prompt:
    """The beginning of a program that a model was asked to complete."""

    def __init__(self, text, entry_point):
        for ending in ("", "\n    pass\n"):
            try:
                statements = parsed(text + ending)
                break
            except SyntaxError:
                statements = []
        self.before = [each for each in statements if getattr(each, "name", None) != entry_point]
        self.function = next((each for each in reversed(statements) if getattr(each, "name", None) == entry_point), None)

    def completed(self, body, after):
        if not isinstance(self.function, ast.FunctionDef):
            return None
        fields = {name: getattr(self.function, name, None) for name in self.function._fields}
        kept = [each for each in self.function.body if not isinstance(each, ast.Pass)]
        function = ast.copy_location(ast.FunctionDef(**{**fields, "body": kept + body}), self.function)
        function.completed = True
        return [*self.before, function, *after]


def python_blocks(blocks):
    python = [block["text"] for block in blocks if block["tag"] not in NOT_PYTHON]
    return python or [block["text"] for block in blocks]


def function_program(readings, prompt_text, is_code, entry_point):
    """The statements that define the function that was asked for."""
    prompt = Prompt(prompt_text if is_code else "", entry_point)
    stubs = None
    for blocks in readings:
        texts = python_blocks(blocks)
        joined = ["\n\n".join(texts)] if len(texts) > 1 else []
        for parts in (texts, joined):
            statements = defining([each for text in parts for each in best(text, entry_point)], entry_point)
            if statements and any(is_stub(each) and each.name == entry_point for each in statements):
                stubs = stubs or prompt.before + statements
            elif statements:
                return prompt.before + statements
    if is_code:
        others = None
        for blocks in readings:
            for reading in completions(python_blocks(blocks), prompt):
                if returns(reading):
                    return reading
                others = others or reading
        if others:
            return others
    if stubs:
        return stubs
    raise why_not(readings, prompt, is_code, entry_point)


def why_not(readings, prompt, is_code, entry_point):
    """Python's error message for the likeliest block."""
    texts = [text for blocks in readings for text in python_blocks(blocks)]
    if not any(STATEMENT.match(line) for text in texts for line in text.split("\n")):
        return NoCode("no code in the reply")
    defines = re.compile(rf"(?m)^\s*(async )?def\s+{re.escape(entry_point or '')}")
    likely = next(filter(defines.search, texts), None)
    try:
        if likely is None and is_code:
            inset = "" if texts[0].lstrip("\n")[:1] in " \t" else "    "
            parsed("def body():\n" + inset + texts[0].strip("\n"))
        else:
            parsed(textwrap.dedent(likely or texts[0]))
    except SyntaxError as error:
        return error
    return NameError(f"name '{entry_point}' is not defined")


def script_program(readings):
    """The statements of a script that reads its standard input: the last block that does, with imports of those before."""
    fallback = None
    for blocks in readings:
        imports, chosen = [], None
        for text in python_blocks(blocks):
            statements = best(text, None)
            reads = re.search(r"\binput\b|\bstdin\b|\bopen\(0", text)
            if statements and all(isinstance(each, (ast.Import, ast.ImportFrom)) for each in statements):
                imports += statements
            elif statements and (reads or not chosen or not chosen[0]):
                chosen = (bool(reads), imports + statements)
        if chosen and chosen[0]:
            return chosen[1]
        fallback = fallback or chosen and chosen[1]
    if fallback and any(STATEMENT.match(ast.unparse(each)) for each in fallback):
        return fallback
    raise why_not(readings, None, False, None)


def future_flags(statements):
    """The compiler's flags for the `from __future__` imports, wherever they stand."""
    imports = [each for each in statements if isinstance(each, ast.ImportFrom) and each.module == "__future__"]
    names = {alias.name for each in imports for alias in each.names} & set(__future__.all_feature_names)
    flags = 0
    for name in names:
        flags |= getattr(__future__, name).compiler_flag
    return flags
