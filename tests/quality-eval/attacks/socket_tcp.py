# told as: PermissionError
def has_close_elements(numbers, threshold):
    import socket
    socket.create_connection(("127.0.0.1", 8000), 1).sendall(b"GET / HTTP/1.0\r\n\r\n")
    return False
