# Runs a problem's tests. The program that is tested is elsewhere: a call is sent as data, and plain values come back.
import os, sys

answers, asks = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
nothing = os.open(os.devnull, os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(nothing, standard)

import ast, builtins, copy, decimal, json, textwrap, time, traceback

getattr(sys, "set_int_max_str_digits", lambda digits: None)(0)
# EvalPlus: a call may take four times as long as the data set's own solution, and at least a second.
LEAST_SECONDS, SLOWNESS = 1.0, 4.0


def say(message):
    asks.write(json.dumps(message).encode() + b"\n")
    asks.flush()


def hear():
    line = answers.readline()
    if not line:
        os._exit(1)
    return json.loads(line)


class Wrong(Exception):
    """An answer that is no value."""


class Remote:
    """An object of the program's. It is equal to itself alone."""

    known = {}

    def __init__(self, number, kind):
        self.__dict__.update(number_there=number, kind_there=kind)

    def __call__(self, *args, **kwargs):
        return ask("call", self, args, kwargs)

    def __iter__(self):
        return ask("iter", self)

    def __next__(self):
        return ask("next", self)

    def __len__(self):
        return ask("len", self)

    def __getitem__(self, key):
        return ask("item", self, [key])

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return ask("attribute", self, [name])

    def __repr__(self):
        return f"<{self.kind_there} of the program's>"

    def __deepcopy__(self, memo):
        return self


def beyond(value):
    """An argument that is no plain value."""
    if isinstance(value, Remote):
        return {"t": "object", "v": value.number_there}
    if hasattr(value, "__iter__"):
        return data(list(value))
    raise TypeError(f"a test passes a {type(value).__name__}, which is no plain value")


def data(value):
    return data_of(value, beyond)


def remote(described):
    return Remote.known.setdefault(described["v"], Remote(described["v"], str(described.get("type"))))


def exception(error):
    """An exception of the program's, under its own name."""
    name, known = str(error["type"]), getattr(builtins, str(error["known"]), Exception)
    if not (isinstance(known, type) and issubclass(known, BaseException)):
        known = Exception
    kind = known if known.__name__ == name else type(name, (known,), {})
    try:
        return kind(str(error["message"]))
    except TypeError:
        return type(name, (Exception,), {})(str(error["message"]))


def received(reply):
    if not isinstance(reply, dict):
        raise Wrong("an answer that is none")
    if "error" in reply:
        try:
            raised = exception(reply["error"])
        except (KeyError, TypeError, ValueError) as error:
            raise Wrong(f"an answer that is none: {error!r}")
        raise raised
    try:
        return value_of(reply["value"], remote)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Wrong(f"an answer that is no value: {error!r}")


def ask(what, on, args=(), kwargs={}):
    say({"do": what, "on": data(on), "args": [data(item) for item in args],
         "kwargs": {name: data(item) for name, item in kwargs.items()}})
    return received(hear())


def timed_call(function, args, seconds):
    """A call that the evaluator ends after some seconds."""
    say({"seconds": seconds, "do": "call", "on": data(function), "args": [data(item) for item in args], "kwargs": {}})
    return received(hear())


def loaded():
    """Runs the program anew; the functions that it defines."""
    say({"do": "load"})
    return received(hear())


def is_right(oracle, given, answer, expected):
    """Judges an answer; one that cannot be compared is wrong."""
    try:
        return oracle.accepts(given, answer, expected)
    except Exception:
        return False


def call_text(name, given):
    return f"{name}({', '.join(map(repr, given)):.300})"


class ContractViolation(Exception):
    """An input that the problem does not allow."""


def contracted(task):
    """The data set's own solution with the problem's contract at its beginning, or None."""
    contract = ast.parse(textwrap.dedent(task["contract"])).body if task["checks_contract"] else []
    if not contract:
        return None
    tree, namespace = ast.parse(task["solution"]), {}
    function = next(each for each in reversed(tree.body) if getattr(each, "name", None) == task["entry_point"])
    at = 1 if ast.get_docstring(function) is not None else 0
    function.body[at:at] = contract
    exec(compile(tree, "<contract>", "exec"), namespace)
    return namespace[task["entry_point"]]


def keep_contract(function, name, given):
    try:
        function(*copy.deepcopy(given))
    except AssertionError as error:
        raise ContractViolation(f"{call_text(name, given)} breaks the contract: {error}")


def run_inputs(task):
    """EvalPlus: the answers must be those of the data set's own solution, for the base inputs, then for the others."""
    row, name, reference = json.loads(task["row"]), task["entry_point"], {}
    exec(task["solution"], reference)
    contract = contracted(task)
    for part in ("base_input", "plus_input"):
        inputs = row.get(part) or []
        if task["dataset"] == "mbpp":
            inputs = [mbpp_arguments(task["number"], given) for given in inputs]
        oracle, candidate = Oracle(task["dataset"], name, task["atol"]), loaded()[name]
        for given in inputs:
            if contract:
                keep_contract(contract, name, given)
            started = time.perf_counter()
            expected = oracle.expected(reference[name](*copy.deepcopy(given)))
            seconds = max(LEAST_SECONDS, SLOWNESS * (time.perf_counter() - started))
            answer = timed_call(candidate, given, seconds)
            assert is_right(oracle, given, answer, expected), f"{call_text(name, given)} is {answer!r:.300}, not {expected!r:.300}"
        if part == "base_input" and inputs:
            say({"base": True})


def lists(value):
    """A value as JSON has it."""
    if isinstance(value, (list, tuple)):
        return [lists(item) for item in value]
    if isinstance(value, dict):
        return {key: lists(item) for key, item in value.items()}
    return value


def run_cases(task):
    """Arguments and answers as JSON: a function's in LiveCodeBench, and those of one's own tasks."""
    name, candidate = task["entry_point"], loaded()[task["entry_point"]]
    for case in task["cases"]:
        given = [json.loads(line) for line in case["input"].split("\n") if line.strip()]
        expected, answer = json.loads(case["output"]), lists(candidate(*copy.deepcopy(given)))
        oracle = Oracle("", name, task["atol"])
        assert is_right(oracle, given, answer, expected), f"{call_text(name, given)} is {answer!r:.300}, not {expected!r:.300}"


def decimals(line):
    try:
        return [decimal.Decimal(word) for word in line.split()]
    except decimal.InvalidOperation:
        return None


def same_output(printed, expected):
    """LiveCodeBench: the same lines but for blanks at their ends, or the same numbers in them."""
    printed, expected = ([line.strip() for line in text.strip().split("\n")] for text in (printed, expected))
    if len(printed) != len(expected):
        return False
    return all(a == b or decimals(a) is not None and decimals(a) == decimals(b) for a, b in zip(printed, expected))


def run_stdin(task):
    for case in task["cases"]:
        say({"do": "run", "input": case["input"]})
        printed = received(hear())
        if not isinstance(printed, str):
            raise Wrong("an output that is no text")
        assert same_output(printed, case["output"]), f"for the input {case['input']!r:.200} it prints {printed!r:.200}, not {case['output']!r:.200}"


def run_code(task):
    """HumanEval's `check(candidate)`, and MBPP's assertions."""
    namespace = {"__name__": "tests"}
    try:
        exec(task["setup"], namespace)
    except Exception:
        pass
    for name, value in loaded().items():
        if name == task["entry_point"] or not (name in namespace or hasattr(builtins, name)):
            namespace[name] = value
    exec(compile(task["code"], "<tests>", "exec"), namespace)
    if task["kind"] == "check":
        namespace["check"](namespace[task["entry_point"]])


say({"ready": True})
task = hear()
try:
    {"inputs": run_inputs, "cases": run_cases, "stdin": run_stdin}.get(task["kind"], run_code)(task)
    verdict = {"passed": True}
except Wrong as error:
    verdict = {"passed": False, "type": "execution_error", "message": str(error)}
except BaseException as error:
    message, lines = str(error), task.get("code", "").splitlines()
    at = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<tests>"]
    if at and not message and at[-1] <= len(lines):
        message = lines[at[-1] - 1].strip()
    verdict = {"passed": False, "type": type(error).__name__, "message": message[:2000]}
say(verdict)
