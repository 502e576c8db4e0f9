# told as: execution_error
def has_close_elements(numbers, threshold):
    raise type("simulator_rejected", (Exception,), {})("not my fault")
