# told as: execution_error MemoryError execution_timeout
def has_close_elements(numbers, threshold):
    return ["x" * 1000] * (1 << 20)
