# told as: execution_error
def has_close_elements(numbers, threshold):
    import ctypes
    ctypes.string_at(0)
