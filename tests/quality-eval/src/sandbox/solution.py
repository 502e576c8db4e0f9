# Holds the program that is tested, and calls its functions for the checker. Whatever happens here stays here: the tests
# are in another process, and only plain values go to it.
import os, sys

asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
nothing = os.open(os.devnull, os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(nothing, standard)

import ast, io, json, threading

getattr(sys, "set_int_max_str_digits", lambda digits: None)(0)
# The most that a script may print, in bytes.
LONGEST_OUTPUT = 16 << 20
objects = {}
statements = []


def kept(value):
    """Encodes a value. Objects that are no plain values stay here, referred to by number. Numpy's numbers are plain."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return data_of(value.item(), kept)
    number = id(value)
    objects[number] = value
    return {"t": "object", "v": number, "type": type(value).__name__}


def plain(value):
    return data_of(value, kept)


def meant(data):
    return value_of(data, lambda described: objects[described["v"]])


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


def assemble(task):
    """Finds the program in a reply; nothing of it runs."""
    if task["is_script"]:
        return script_program(task["readings"])
    return function_program(task["readings"], task["prompt"], task["is_code"], task["entry_point"])


def load(entry_point):
    """Runs the program. What fails beside the function that is asked for, such as a demonstration, does not matter."""
    namespace, first = {"__name__": "solution", "__builtins__": __builtins__}, None
    flags = future_flags(statements)
    for statement in statements:
        try:
            exec(compile(ast.Module([statement], []), "<program>", "exec", flags, True), namespace)
        except BaseException as error:
            first = first or error
    if entry_point is not None and entry_point not in namespace:
        raise first or NameError(f"name '{entry_point}' is not defined")
    names = {name: plain(value) for name, value in namespace.items() if not name.startswith("__") and callable(value)}
    return {"value": {"t": "dict", "v": [[name, value] for name, value in names.items()]}}


def write_all(descriptor, text):
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
    except OSError:
        pass


def read_all(descriptor, chunks):
    with os.fdopen(descriptor, "rb") as file:
        left = LONGEST_OUTPUT
        while chunk := file.read1(1 << 16):
            if left > 0:
                chunks.append(chunk[:left])
            left -= len(chunk)


def run_script(text):
    """Runs the program as a script with an input; what it prints."""
    (for_reading, to_write), (to_read, for_writing), printed = os.pipe(), os.pipe(), []
    threads = [threading.Thread(target=write_all, args=(to_write, text.encode()), daemon=True),
               threading.Thread(target=read_all, args=(to_read, printed), daemon=True)]
    for thread in threads:
        thread.start()
    os.dup2(for_reading, 0), os.dup2(for_writing, 1), os.close(for_reading), os.close(for_writing)
    sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False), "utf-8")
    sys.stdout = output = io.TextIOWrapper(open(1, "wb", closefd=False), "utf-8")
    try:
        code = compile(ast.Module(statements, []), "<program>", "exec", future_flags(statements), True)
        exec(code, {"__name__": "__main__", "__builtins__": __builtins__})
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    finally:
        try:
            output.flush()
        except (OSError, ValueError):
            pass
        for standard in (0, 1):
            os.dup2(nothing, standard)
        threads[1].join()
    return b"".join(printed).decode(errors="replace")


def act(message):
    what, on = message["do"], meant(message.get("on"))
    if what == "run":
        return run_script(message["input"])
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
entry_point = None
for line in iter(asked.readline, b""):
    message = json.loads(line)
    try:
        if "readings" in message:
            entry_point, statements = message["entry_point"], assemble(message)
            reply = {"statements": len(statements)}
        elif message["do"] == "load":
            reply = load(entry_point)
        else:
            reply = {"value": plain(act(message))}
        line = json.dumps(reply)
    except BaseException as error:
        reply = {"no_code": str(error)} if "readings" in message and isinstance(error, NoCode) else failure(error)
    answer(reply)
