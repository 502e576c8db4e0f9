# told as: execution_error RecursionError MemoryError execution_timeout
def has_close_elements(numbers, threshold):
    import sys
    sys.setrecursionlimit(10 ** 9)
    def deeper(value):
        return [deeper(value)]
    return deeper(1)
