# Runs a problem's tests. What is tested is elsewhere: a call goes over as data, and plain values come back.
import os, sys

answers, asks = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
nothing = os.open(os.devnull, os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(nothing, standard)

import ast, builtins, copy, json, traceback

getattr(sys, "set_int_max_str_digits", lambda digits: None)(0)


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
    """What a test passes that is no plain value."""
    if isinstance(value, Remote):
        return {"t": "object", "v": value.number_there}
    if hasattr(value, "__iter__"):
        return data(list(value))
    raise TypeError(f"a test passes a {type(value).__name__}, which is no plain value")


def data(value):
    return data_of(value, beyond)


def remote(told):
    return Remote.known.setdefault(told["v"], Remote(told["v"], str(told.get("type"))))


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
        except (KeyError, TypeError) as error:
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


def is_close(one, other, atol):
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(is_close(a, b, atol) for a, b in zip(one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_close(one[key], other[key], atol) for key in one)
    if isinstance(one, float) or isinstance(other, float):
        try:
            return one == other or one != one and other != other or abs(one - other) <= (atol or 1e-6) + 1e-7 * abs(other)
        except TypeError:
            return False
    return one == other


def run_inputs(task, candidate):
    reference = {}
    exec(task["solution"], reference)
    own = reference[task["entry_point"]]
    for given in task["inputs"]:
        expected = own(*copy.deepcopy(given))
        got = candidate(*given)
        assert is_close(got, expected, task["atol"]), f"{task['entry_point']}(*{given!r:.300}) is {got!r:.300}, not {expected!r:.300}"


def run(task):
    namespace = {"__name__": "tests"}
    try:
        exec(task["setup"], namespace)
    except Exception:
        pass
    for name, value in received(hear()).items():
        if name == task["entry_point"] or not (name in namespace or hasattr(builtins, name)):
            namespace[name] = value
    if task["kind"] == "inputs":
        return run_inputs(task, namespace[task["entry_point"]])
    exec(compile(task["code"], "<tests>", "exec"), namespace)
    if task["kind"] == "check":
        namespace["check"](namespace[task["entry_point"]])


say({"ready": True})
task = hear()
try:
    run(task)
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
