"""Records EvalPlus's verdicts: `agree.py OUT` writes `problems.jsonl.gz` (in EvalPlus's format) and `verdicts.jsonl.gz`
(solutions, each with what `evalplus.eval.untrusted_check` says of its base and its plus inputs).

HumanEval's problems come from this repository. Base inputs are those that its tests pass to a solution; plus inputs are
base inputs with changes, as far as the data set's own solution answers them. Solutions are the data set's own, and mutants
of them. The same seed gives the same files. EvalPlus: pip install evalplus==0.3.1 (needs no data set for this).
"""
import ast, copy, gzip, json, math, pathlib, random, signal, sys, types

# EvalPlus's package imports the hub's library, of which nothing here is used.
sys.modules.setdefault("datasets", types.SimpleNamespace(load_dataset=None))

import multiprocessing
from evalplus.eval import PASS, unsafe_execute, untrusted_check
from evalplus.data.mbpp import mbpp_deserialize_inputs
from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
from evalplus.gen.util import trusted_exec
from mbpp import PROBLEMS, VARIANTS

SEED, INPUTS, PER_PROBLEM = 20261125, 12, 6
here = pathlib.Path(__file__).parent
humaneval = [json.loads(line) for line in gzip.open(here / "../../../data/humaneval/HumanEval.jsonl.gz", "rt")]


class Late(BaseException):
    pass


def late(*_):
    raise Late


signal.signal(signal.SIGALRM, late)


def within(seconds, function, *args):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*args)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def functions(problem):
    names = {}
    exec(problem["prompt"] + problem["canonical_solution"], names)
    return names


def base_inputs(problem):
    names, seen = functions(problem), []

    def recorded(*args):
        seen.append(copy.deepcopy(list(args)))
        return names[problem["entry_point"]](*args)

    random.seed(SEED)
    exec(problem["test"], names)
    names["check"](recorded)
    return [given for given in seen if json_able(given)][:INPUTS]


def json_able(value):
    """Returns whether a value survives JSON."""
    try:
        back = json.loads(json.dumps(value))
        return back == value and len(json.dumps(value)) < 2000
    except (TypeError, ValueError):
        return False


def changed(value, rng):
    if isinstance(value, bool):
        return rng.random() < 0.5
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, value * 2, -value, 0, 10, rng.randint(-50, 200), value + 1000])
    if isinstance(value, float):
        return rng.choice([value + rng.uniform(-1, 1), value * 1.5, -value, 0.0, 1e-9, 1e16, rng.uniform(-100, 100), math.inf])
    if isinstance(value, str):
        at = rng.randint(0, len(value))
        return rng.choice([value[:at] + rng.choice("abcXYZ 019()[]._-,é") + value[at:], value[:at], value[at:], value * 2, value[::-1], ""])
    if isinstance(value, list):
        items = list(value)
        action = rng.randint(0, 3)
        if not items or action == 0:
            return items + items
        at = rng.randrange(len(items))
        if action == 1:
            del items[at]
        elif action == 2:
            items.insert(at, changed(items[at], rng))
        else:
            items[at] = changed(items[at], rng)
        return items
    if isinstance(value, dict):
        return {key: changed(inner, rng) for key, inner in value.items()}
    return value


def plus_inputs(problem, base, rng):
    function, found = functions(problem)[problem["entry_point"]], []
    for _ in range(INPUTS * 20):
        if len(found) == INPUTS or not base:
            break
        given = copy.deepcopy(rng.choice(base + found))
        at = rng.randrange(len(given)) if given else 0
        if given:
            given[at] = changed(given[at], rng)
        try:
            within(0.05, function, *copy.deepcopy(given))
            if given not in found and given not in base and len(json.dumps(given)) < 2000:
                found.append(given)
        except (Exception, Late):
            pass
    return found


class Mutant(ast.NodeTransformer):
    """Changes the nth place that can be changed."""

    def __init__(self, at, rng):
        self.at, self.rng, self.count = at, rng, 0

    def is_here(self):
        self.count += 1
        return self.count - 1 == self.at

    def visit_Compare(self, node):
        self.generic_visit(node)
        if self.is_here():
            other = [kind for kind in (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq) if not isinstance(node.ops[0], kind)]
            node.ops[0] = self.rng.choice(other)()
        return node

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if self.is_here():
            node.op = self.rng.choice([ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.Div])()
        return node

    def visit_Constant(self, node):
        if isinstance(node.value, (int, float)) and self.is_here():
            return ast.Constant(self.rng.choice([node.value + 1, node.value - 1, 0, node.value + 1e-9, float(node.value)]))
        if isinstance(node.value, str) and self.is_here():
            return ast.Constant(node.value + " ")
        return node

    def visit_Return(self, node):
        self.generic_visit(node)
        if node.value is not None and self.is_here():
            shape = self.rng.choice(["float(R)", "R + 1e-8", "R * (1 + 5e-8)", "R + 1e-3", "list(R)", "tuple(R)", "str(R)", "[R]", "None",
                                     "not R", "bool(R)", "-R", "sorted(R)", "R[::-1]", "R or None", "int(R)", "[float(x) for x in R]", "set(R)"])
            text = shape.replace("R", f"({ast.unparse(node.value)})")
            node.value = ast.parse(text, mode="eval").body
        return node

    def visit_If(self, node):
        self.generic_visit(node)
        if self.is_here():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        return node

    def visit_AugAssign(self, node):
        self.generic_visit(node)
        return ast.Pass() if self.is_here() else node


def mutants(problem, rng):
    source, found = problem["prompt"] + problem["canonical_solution"], []
    counter = Mutant(-1, rng)
    counter.visit(ast.parse(source))
    for _ in range(PER_PROBLEM * 4):
        if len(found) == PER_PROBLEM or not counter.count:
            break
        tree = Mutant(rng.randrange(counter.count), rng).visit(ast.parse(source))
        text = ast.unparse(ast.fix_missing_locations(tree)) + "\n"
        if text not in found:
            found.append(text)
    return found


def humaneval_problems(rng):
    for problem in humaneval:
        base = base_inputs(problem)
        floats = any(isinstance(functions(problem)[problem["entry_point"]](*copy.deepcopy(given)), float) for given in base)
        atol = 1e-4 if problem["entry_point"] == "find_zero" else rng.choice([0, 1e-6]) if floats else 0
        record = {"task_id": problem["task_id"], "prompt": problem["prompt"], "entry_point": problem["entry_point"],
                  "canonical_solution": problem["canonical_solution"], "contract": "", "atol": atol,
                  "base_input": base, "plus_input": plus_inputs(problem, base, rng)}
        yield "humaneval", record, [problem["prompt"] + problem["canonical_solution"], *mutants(problem, rng)]


def mbpp_problems():
    for number, name, solution, inputs in PROBLEMS:
        record = {"task_id": f"Mbpp/{number}", "prompt": f'"""\nWrite a function {name}.\n"""\n', "entry_point": name,
                  "canonical_solution": solution, "contract": "", "atol": 0, "base_input": inputs[:1], "plus_input": inputs[1:] or inputs}
        solutions = [solution]
        for variant in VARIANTS:
            wrapped = solution.replace(f"def {name}(", "def original(").replace(f"{name}(x)", "original(x)")
            solutions.append(f"{wrapped}\ndef {name}(*args):\n    right = original(*args)\n    return {variant}\n")
        yield "mbpp", record, solutions


def finds_zero(solution, inputs, expected, atol, times):
    """The verdict on HumanEval/32. EvalPlus 0.3.1 skips its count of tests there, and so fails every solution in
    `untrusted_check`; this asks the part of it that judges."""
    stat, details, progress = multiprocessing.Value("i", 3), multiprocessing.Array("b", len(inputs)), multiprocessing.Value("i", 0)
    limits = [max(1.0, 4.0 * seconds) for seconds in times]
    process = multiprocessing.Process(
        target=unsafe_execute, args=("humaneval", "find_zero", solution, inputs, expected, limits, atol, True, stat, details, progress))
    process.start()
    process.join(60)
    process.kill()
    return stat.value == 0


def statuses(dataset, problem, solution):
    """EvalPlus's verdicts on the base inputs and on all."""
    result = []
    for part in ("base_input", "plus_input"):
        inputs = problem[part]
        if dataset == "mbpp":
            inputs = mbpp_deserialize_inputs(problem["task_id"], inputs)
        expected, times = trusted_exec(problem["prompt"] + problem["canonical_solution"], inputs, problem["entry_point"], record_time=True,
                                       output_not_none=dataset == "mbpp" and problem["entry_point"] in MBPP_OUTPUT_NOT_NONE_TASKS)
        if not inputs:
            result.append(True)
            continue
        if problem["entry_point"] == "find_zero":
            result.append(finds_zero(solution, copy.deepcopy(inputs), expected, problem["atol"], times))
            continue
        status, _ = untrusted_check(dataset, solution, copy.deepcopy(inputs), problem["entry_point"], expected, problem["atol"], times, fast_check=True)
        result.append(status == PASS)
    return result[0], all(result)


def main(out):
    rng = random.Random(SEED)
    problems, verdicts = [], []
    for dataset, problem, solutions in [*humaneval_problems(rng), *mbpp_problems()]:
        if not problem["base_input"] + problem["plus_input"]:
            continue  # HumanEval's tests pass it nothing that JSON has.
        problems.append(problem)
        for solution in solutions:
            base, plus = statuses(dataset, problem, solution)
            verdicts.append({"task_id": problem["task_id"], "solution": solution, "base": base, "plus": plus})
        print(problem["task_id"], len(solutions), flush=True)
    for name, rows in (("problems", problems), ("verdicts", verdicts)):
        with open(out / f"{name}.jsonl.gz", "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
            packed.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    passed = sum(row["plus"] for row in verdicts)
    print(f"{len(problems)} problems, {len(verdicts)} solutions, {passed} pass, {sum(row['base'] for row in verdicts)} pass the base inputs")


main(pathlib.Path(sys.argv[1]))
