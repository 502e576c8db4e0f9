"""Problems with the names and the shapes of input of MBPP+ tasks that EvalPlus treats specially. The tasks' own data are
not in EvalPlus's package; these solutions and inputs are ours."""

PROBLEMS = [
    (2, "similar_elements", "def similar_elements(a, b):\n    return list(set(a) & set(b))\n", [[[3, 4, 5, 6], [5, 7, 4, 10]], [[1, 2], [5, 4]]]),
    (7, "find_char_long", "def find_char_long(text):\n    return [word for word in text.split() if len(word) >= 4]\n", [["please move back to stream"], ["a b ccccc ddddd ccccc"]]),
    (111, "common_in_nested_lists", "def common_in_nested_lists(lists):\n    return list(set.intersection(*map(set, lists)))\n", [[[[12, 18, 23], [7, 12, 18]]], [[[1], [1]]]]),
    (140, "extract_singly", "def extract_singly(items):\n    return list({x for inner in items for x in inner})\n", [[[[3, 4, 5], [4, 5, 7]]], [[[1, 2], [3]]]]),
    (232, "larg_nnum", "def larg_nnum(items, n):\n    return sorted(items, reverse=True)[:n]\n", [[[10, 20, 50, 70], 2], [[1, 1, 2], 2]]),
    (249, "intersection_array", "def intersection_array(a, b):\n    return [x for x in b if x in a]\n", [[[1, 2, 3], [2, 3, 4]], [[1, 1], [1, 1]]]),
    (579, "find_dissimilar", "def find_dissimilar(a, b):\n    return tuple(set(a) ^ set(b))\n", [[[3, 4, 5], [5, 7]], [[1], [2]]]),
    (769, "Diff", "def Diff(a, b):\n    return list(set(a) - set(b)) + list(set(b) - set(a))\n", [[[10, 15, 20], [15, 30]], [[1], [1]]]),
    (63, "max_difference", "def max_difference(pairs):\n    return max(abs(a - b) for a, b in pairs)\n", [[[[3, 5], [1, 7]]], [[[4, 6], [2, 17]]]]),
    (75, "find_tuples", "def find_tuples(items, k):\n    return [item for item in items if all(x % k == 0 for x in item)]\n", [[[[6, 24, 12], [7, 9, 6]], 6], [[[5, 25]], 5]]),
    (106, "add_lists", "def add_lists(items, end):\n    return end + tuple(items)\n", [[[5, 6, 7], [9, 10]], [[], [1]]]),
    (115, "empty_dit", "def empty_dit(items):\n    return all(not item for item in items)\n", [[[[], []]], [[[1], []]]]),
    (124, "angle_complex", "import cmath\ndef angle_complex(a, b):\n    return cmath.phase(a + b)\n", [["0.0", "1j"], ["2.0", "1j"]]),
    (252, "convert", "import cmath\ndef convert(number):\n    return cmath.polar(number)\n", [["1"], ["4+3j"]]),
    (164, "are_equivalent", "def are_equivalent(a, b):\n    divisors = lambda n: sum(i for i in range(1, n) if n % i == 0)\n    return divisors(a) == divisors(b)\n", [[36, 57], [23, 47]]),
    (295, "sum_div", "def sum_div(n):\n    return sum(i for i in range(1, n) if n % i == 0)\n", [[8], [12], [1]]),
    (558, "digit_distance_nums", "def digit_distance_nums(a, b):\n    return sum(map(int, str(abs(a - b))))\n", [[1, 2], [23, 56], [123, 256], [5, 15]]),
    (581, "surface_Area", "def surface_Area(b, s):\n    return 2 * b * s + b * b\n", [[3, 4], [4, 5], [1, 2]]),
    (580, "extract_even", "def extract_even(items):\n    return tuple(extract_even(x) if isinstance(x, tuple) else x for x in items if isinstance(x, tuple) or x % 2 == 0)\n", [[[4, 5, [7, 6, [2, 4]], 6, 8]], [[5, 6, [8, 8]]]]),
    (278, "count_first_elements", "def count_first_elements(items):\n    return next((i for i, x in enumerate(items) if isinstance(x, tuple)), len(items))\n", [[[1, 5, 7, [4, 6], 10]], [[2, 9]]]),
    (307, "colon_tuplex", "def colon_tuplex(items, m, n):\n    changed = list(items)\n    changed[m] = [n]\n    return tuple(changed)\n", [[["HELLO", 5, [], True], 2, 50]]),
    (722, "filter_data", "def filter_data(students, h, w):\n    return {k: s for k, s in students.items() if s[0] >= h and s[1] >= w}\n", [[{"a": [6.2, 70], "b": [5.9, 65]}, 6.0, 70]]),
    (259, "maximize_elements", "def maximize_elements(a, b):\n    return tuple(tuple(max(x, y) for x, y in zip(p, q)) for p, q in zip(a, b))\n", [[[[1, 3], [4, 5]], [[6, 7], [3, 9]]]]),
    (461, "check_str", "import re\ndef check_str(text):\n    return re.search('^[aeiouAEIOU]', text)\n", [["annie"], ["dawood"], ["Else"]]),
    (434, "text_match_three", "import re\ndef text_match_three(text):\n    return re.search('ab{3}', text)\n", [["ac"], ["abbbba"]]),
    (794, "text_starta_endb", "import re\ndef text_starta_endb(text):\n    return re.search('a.*?b$', text)\n", [["aabbbb"], ["aabAbbbc"]]),
    (14, "find_Volume", "def find_Volume(l, b, h):\n    return l * b * h / 2\n", [[10, 8, 6], [3, 2, 2], [1, 2, 1]]),
    (98, "multiply_num", "def multiply_num(numbers):\n    total = 1\n    for x in numbers:\n        total *= x\n    return total / len(numbers)\n", [[[8, 2, 3, -1, 7]], [[-10, -20, -30]], [[1e308, 10]]]),
    (124001, "mixed", "def mixed(x):\n    return x\n", [[1.5], [100000000], [[1.0, 2.0]], [[1, 2]], [float("inf")], [10**30], ["x"], [None], [[[1.0], [2.0]]], [True]]),
]

# Answers that differ in kind, as expressions of the right one, `right`.
VARIANTS = ["right", "list(right)", "tuple(right)", "set(right)", "sorted(right)", "[*right, *right]", "bool(right)", "right is not None",
            "float(right)", "int(right)", "right + 1e-8", "right + 1e-5", "right * (1 + 1e-8)", "right * (1 + 1e-6)", "right + 1", "-right",
            "0", "None", "1", "'a'", "[]", "float('nan')", "float('inf')", "str(right)", "[right]", "iter(right)", "{x: 1 for x in right}",
            "[float(x) for x in right]", "[x + 1e-8 for x in right]", "[x + 1e-5 for x in right]", "[[x] for x in right]", "right[::-1]",
            "frozenset(right)", "complex(right)", "round(right, 5)", "1/0", "-5", "10**20", "right + 1 if isinstance(right, int) else right",
            "type('T', (type(right),), {})(right)"]
