# told as: execution_timeout
def has_close_elements(numbers, threshold):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
