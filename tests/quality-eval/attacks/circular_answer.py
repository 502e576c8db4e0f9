# told as: ValueError
def has_close_elements(numbers, threshold):
    answer = []
    answer.append(answer)
    return answer
