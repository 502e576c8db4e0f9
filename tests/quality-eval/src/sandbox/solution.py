# Holds the program that is tested, and calls its functions for whoever asks. Whatever happens here stays here: the
# tests are elsewhere, and only plain values go to them.
import os, sys

asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
nothing = os.open(os.devnull, os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(nothing, standard)

import ast, json

getattr(sys, "set_int_max_str_digits", lambda digits: None)(0)
objects = {}


def plain(value, depth=0):
    """A value as data. What is none stays here, and has a number."""
    if depth > 200:
        raise ValueError("an answer nested deeper than 200")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"t": "tuple", "v": [plain(item, depth + 1) for item in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"t": "dict", "v": [[plain(key, depth + 1), plain(item, depth + 1)] for key, item in dict.items(value)]}
    if isinstance(value, frozenset):
        return {"t": "frozenset", "v": [plain(item, depth + 1) for item in frozenset.__iter__(value)]}
    if isinstance(value, set):
        return {"t": "set", "v": [plain(item, depth + 1) for item in set.__iter__(value)]}
    if isinstance(value, complex):
        return {"t": "complex", "v": [value.real, value.imag]}
    if isinstance(value, (bytes, bytearray)):
        return {"t": type(value).__name__, "v": bytes(value).hex()}
    if isinstance(value, range):
        return {"t": "range", "v": [value.start, value.stop, value.step]}
    number = id(value)
    objects[number] = value
    return {"t": "object", "v": number, "type": type(value).__name__}


def value_of(data):
    if isinstance(data, list):
        return [value_of(item) for item in data]
    if not isinstance(data, dict):
        return data
    kind, inner = data["t"], data["v"]
    if kind == "object":
        return objects[inner]
    if kind == "dict":
        return {value_of(key): value_of(item) for key, item in inner}
    if kind == "complex":
        return complex(*inner)
    if kind in ("bytes", "bytearray"):
        return (bytes if kind == "bytes" else bytearray).fromhex(inner)
    if kind == "range":
        return range(*inner)
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](value_of(item) for item in inner)


def answer(message):
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def failure(error):
    kind = type(error)
    known = next((base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"), "Exception")
    try:
        message = str(error)[:2000]
    except BaseException:
        message = ""
    return {"error": {"type": kind.__name__, "known": known, "message": message}}


def chosen(programs, entry_point):
    """The first that is Python and defines what is asked for; else the first error."""
    first = None
    for program in programs:
        try:
            tree = ast.parse(program)
            code = compile(tree, "<program>", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            first = first or error
            continue
        names = {node.name for node in tree.body if hasattr(node, "name")}
        names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        if entry_point is None or entry_point in names:
            return code
        first = first or NameError(f"name '{entry_point}' is not defined")
    raise first or ValueError("there is no program")


def load(task):
    namespace = {"__name__": "solution", "__builtins__": __builtins__}
    exec(chosen(task["programs"], task["entry_point"]), namespace)
    names = {name: plain(value) for name, value in namespace.items() if not name.startswith("__") and callable(value)}
    return {"value": {"t": "dict", "v": [[name, value] for name, value in names.items()]}}


def act(message):
    what, on = message["do"], value_of(message["on"])
    if what == "call":
        arguments = [value_of(item) for item in message["args"]]
        return on(*arguments, **{name: value_of(item) for name, item in message["kwargs"].items()})
    if what == "iter":
        return iter(on)
    if what == "next":
        return next(on)
    if what == "len":
        return len(on)
    if what == "item":
        return on[value_of(message["args"][0])]
    return getattr(on, message["args"][0])


answer({"ready": True})
for line in iter(asked.readline, b""):
    message = json.loads(line)
    try:
        if "programs" in message:
            reply = load(message)
        else:
            reply = {"value": plain(act(message))}
        line = json.dumps(reply)
    except BaseException as error:
        reply = failure(error)
    answer(reply)
