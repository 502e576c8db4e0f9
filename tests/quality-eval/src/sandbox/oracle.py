# Decides whether an answer is right as EvalPlus 0.3.1 does (evalplus.eval.unsafe_execute with numpy 2's allclose), without
# numpy. The special cases and the shapes of MBPP+'s inputs are facts of its data sets (Apache-2.0,
# github.com/evalplus/evalplus).
import math

# MBPP+ tasks whose answers are compared as sets.
AS_SETS = {"similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
           "intersection_array", "find_dissimilar", "Diff"}
# MBPP+ tasks of which only is known whether they answer anything.
NOT_NONE = {"check_str", "text_match_three", "text_starta_endb"}

TUPLE_ARGUMENTS = {2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809}
LISTS_OF_TUPLES = {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}
LIST_OF_TUPLES_FIRST = {75, 413, 444, 753}
TUPLE_SECOND = {106, 750}
TUPLE_FIRST = {250, 307, 405, 446, 617, 720, 763, 808}
TUPLES_OF_TUPLES = {259, 401, 445}
TUPLES_ALL_THE_WAY = {580, 615, 791}


def tuples(value):
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def mbpp_arguments(number, given):
    """The arguments that MBPP+ means by JSON's lists."""
    if number in TUPLE_ARGUMENTS:
        return [tuple(item) for item in given]
    if number in LISTS_OF_TUPLES:
        return [[tuple(item) for item in items] for items in given]
    if number in LIST_OF_TUPLES_FIRST:
        return [[tuple(item) for item in given[0]], given[1]]
    if number in TUPLE_SECOND:
        return [given[0], tuple(given[1])]
    if number in TUPLE_FIRST:
        return [tuple(given[0]), *given[1:]]
    if number in TUPLES_OF_TUPLES:
        return [tuple(tuple(item) for item in items) for items in given]
    if number in TUPLES_ALL_THE_WAY:
        return [tuples(item) for item in given]
    if number == 115:
        return [[set(item) if isinstance(item, list) and item else {} for item in given[0]]]
    if number == 124:
        return [float(given[0]), complex(given[1])]
    if number == 252:
        return [complex(given[0])]
    if number == 278:
        return [tuple(tuple(item) if isinstance(item, list) else item for item in given[0])]
    if number == 722:
        return [{key: tuple(value) for key, value in given[0].items()}, *given[1:]]
    return given


def surface_area(base, height):
    """Mbpp/581 with the height of the pyramid, not of its sides."""
    return round(base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2))


def digit_distance(one, other):
    """Mbpp/558 with leading zeros."""
    one, other = str(one), str(other)
    width = max(len(one), len(other))
    return sum(abs(int(a) - int(b)) for a, b in zip(one.zfill(width), other.zfill(width)))


def polynomial(coefficients, x):
    """HumanEval/32: a zero is right if the polynomial is small there."""
    return sum(coefficient * math.pow(x, power) for power, coefficient in enumerate(coefficients))


class Array:
    """Numbers as numpy's asarray takes them: nested lists of one shape, of 64-bit integers, floats or complex numbers."""

    def __init__(self, value):
        self.items, self.shape = [], self.measure(value)
        self.collect(value)
        if any(isinstance(item, int) and not -(2**63) <= item < 2**64 for item in self.items) and self.shape:
            raise TypeError("integers of more than 64 bits")

    def measure(self, value):
        if not isinstance(value, (list, tuple)):
            return ()
        shapes = {self.measure(item) for item in value}
        if len(shapes) > 1:
            raise ValueError("lists of several lengths")
        return (len(value), *(shapes.pop() if shapes else ()))

    def collect(self, value):
        if isinstance(value, (list, tuple)):
            for item in value:
                self.collect(item)
        elif isinstance(value, (bool, int, float, complex)):
            self.items.append(value)
        else:
            raise TypeError("no number")

    def stretched(self, shape):
        """The items after numpy's broadcasting to a shape."""
        own = (1,) * (len(shape) - len(self.shape)) + self.shape
        for index in range(math.prod(shape)):
            at, step = 0, 1
            for length, to in zip(reversed(own), reversed(shape)):
                index, rest = divmod(index, to)
                at, step = at + (rest if length > 1 else 0) * step, step * length
            yield self.items[at]


def broadcast(one, other):
    width = max(len(one), len(other))
    one, other = (1,) * (width - len(one)) + one, (1,) * (width - len(other)) + other
    for a, b in zip(one, other):
        if a != b and 1 not in (a, b):
            raise ValueError("shapes that do not go together")
    return tuple(b if a == 1 else a for a, b in zip(one, other))


def all_close(one, other, rtol, atol):
    one, other = Array(one), Array(other)
    shape = broadcast(one.shape, other.shape)
    return all(is_close(a, b, rtol, atol) for a, b in zip(one.stretched(shape), other.stretched(shape)))


def is_close(one, other, rtol, atol):
    other = other if isinstance(other, complex) else float(other)
    is_finite = math.isfinite(other.real) and math.isfinite(other.imag)
    return one == other or is_finite and abs(one - other) <= atol + rtol * abs(other)


def expects_floats(value):
    return isinstance(value, float) or isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, float) for item in value)


class Oracle:
    """Judges the answers to one list of inputs. A tolerance for floats begins with the first float that is expected."""

    def __init__(self, dataset, entry_point, atol):
        self.dataset, self.entry_point, self.atol = dataset, entry_point, atol

    def expected(self, value):
        """The expected value, given the answer of the data set's own solution."""
        return value is not None if self.dataset == "mbpp" and self.entry_point in NOT_NONE else value

    def accepts(self, given, answer, expected):
        """Judges an answer. One that raises an exception is wrong."""
        if self.dataset == "humaneval" and self.entry_point == "find_zero":
            return abs(polynomial(*given, answer)) <= self.atol
        is_exact = answer == expected
        if self.dataset == "mbpp":
            is_exact = self.mbpp(given, answer, expected, is_exact)
        if self.atol == 0 and expects_floats(expected):
            self.atol = 1e-6
        if is_exact or self.atol == 0:
            return bool(is_exact)
        if type(answer) != type(expected) or isinstance(expected, (list, tuple)) and len(answer) != len(expected):
            return False
        return all_close(answer, expected, 1e-7, self.atol)

    def mbpp(self, given, answer, expected, is_exact):
        if self.entry_point == "are_equivalent":
            return True
        if self.entry_point == "sum_div":
            return is_exact or answer == 0
        if self.entry_point == "surface_Area":
            return is_exact or abs(answer - surface_area(*given)) <= self.atol
        if self.entry_point == "digit_distance_nums":
            return is_exact or answer == digit_distance(*given)
        if self.entry_point in AS_SETS:
            return set(answer) == set(expected)
        if self.entry_point in NOT_NONE:
            return answer == expected if isinstance(answer, bool) else expected == (answer is not None)
        return is_exact
