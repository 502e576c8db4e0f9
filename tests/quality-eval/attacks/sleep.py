# told as: execution_timeout
def has_close_elements(numbers, threshold):
    import time
    time.sleep(100000)
