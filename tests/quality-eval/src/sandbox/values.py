# Plain values as data, for both sides: what is no list, number, text or truth has its kind beside it.


def data_of(value, other, depth=0):
    """A value as data; `other` says what a value of no known kind is."""
    if depth > 200:
        raise ValueError("a value nested deeper than 200")
    if value is None or value is True or value is False:
        return value
    # By the built-in type's own methods, whatever a subclass says.
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list):
        return [data_of(item, other, depth + 1) for item in list.__iter__(value)]
    if isinstance(value, dict):
        pairs = dict.items(value)
        return {"t": "dict", "v": [[data_of(key, other, depth + 1), data_of(item, other, depth + 1)] for key, item in pairs]}
    for kind in (tuple, frozenset, set):
        if isinstance(value, kind):
            return {"t": kind.__name__, "v": [data_of(item, other, depth + 1) for item in kind.__iter__(value)]}
    if isinstance(value, complex):
        return {"t": "complex", "v": [value.real, value.imag]}
    if isinstance(value, (bytes, bytearray)):
        return {"t": "bytes" if isinstance(value, bytes) else "bytearray", "v": bytes(value).hex()}
    if isinstance(value, range):
        return {"t": "range", "v": [value.start, value.stop, value.step]}
    return other(value)


def value_of(data, object_of):
    """The value of data; `object_of` finds what was no plain value."""
    if isinstance(data, list):
        return [value_of(item, object_of) for item in data]
    if not isinstance(data, dict):
        return data
    kind, inner = data["t"], data["v"]
    if kind == "object":
        return object_of(data)
    if kind == "dict":
        return {value_of(key, object_of): value_of(item, object_of) for key, item in inner}
    if kind == "complex":
        return complex(*map(float, inner))
    if kind in ("bytes", "bytearray"):
        return (bytes if kind == "bytes" else bytearray).fromhex(inner)
    if kind == "range":
        return range(*inner)
    return {"tuple": tuple, "set": set, "frozenset": frozenset}[kind](value_of(item, object_of) for item in inner)


