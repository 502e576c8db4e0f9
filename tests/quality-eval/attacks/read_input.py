# told as: EOFError
def has_close_elements(numbers, threshold):
    return input()
