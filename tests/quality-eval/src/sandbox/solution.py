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


def kept(value):
    """What is no plain value stays here, and has a number."""
    number = id(value)
    objects[number] = value
    return {"t": "object", "v": number, "type": type(value).__name__}


def plain(value):
    return data_of(value, kept)


def meant(data):
    return value_of(data, lambda told: objects[told["v"]])


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
    what, on = message["do"], meant(message["on"])
    if what == "call":
        arguments = [meant(item) for item in message["args"]]
        return on(*arguments, **{name: meant(item) for name, item in message["kwargs"].items()})
    if what == "iter":
        return iter(on)
    if what == "next":
        return next(on)
    if what == "len":
        return len(on)
    if what == "item":
        return on[meant(message["args"][0])]
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
