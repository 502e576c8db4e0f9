# told as: ValueError
def has_close_elements(numbers, threshold):
    answer = []
    for _ in range(100000):
        answer = [answer]
    return answer
