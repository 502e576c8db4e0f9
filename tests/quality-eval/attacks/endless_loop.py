# told as: execution_timeout
def has_close_elements(numbers, threshold):
    while True:
        pass
