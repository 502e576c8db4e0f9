"""The real `openai` client through the gateway: sounds and images.   openai_media.py BASE_URL MODEL

Prints one JSON object: what the client saw.
"""
import base64
import io
import json
import sys
import wave

import openai

base_url, model = sys.argv[1:3]
client = openai.OpenAI(base_url=base_url + "/v1", api_key="unused", max_retries=0)
out = {}


def sound(seconds, rate=8000):
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, rate, 0, "NONE", ""))
        written.writeframes(b"\0\1" * int(seconds * rate))
    return file.getvalue()


recording = ("Größe 🎤.wav", sound(2.5), "audio/wav")

written = client.audio.transcriptions.create(model=model, file=recording)
assert written.text, written
out["text"] = written.text
out["seconds"] = written.usage.seconds

plain = client.audio.transcriptions.create(model=model, file=recording, response_format="text")
assert plain.strip() == written.text, plain

verbose = client.audio.transcriptions.create(
    model=model, file=recording, response_format="verbose_json", timestamp_granularities=["segment"], language="de"
)
assert verbose.duration == 2.5 and verbose.language == "de", verbose

english = client.audio.translations.create(model=model, file=recording)
assert english.text == written.text, english

pieces = list(client.audio.transcriptions.create(model=model, file=recording, stream=True))
streamed = "".join(choice["delta"].get("content", "") for piece in pieces for choice in piece.choices)
assert streamed == written.text, pieces

with client.audio.speech.with_streaming_response.create(
    model=model, input="one two three four", voice="alloy", response_format="wav"
) as spoken:
    assert spoken.headers["content-type"] == "audio/wav", spoken.headers
    spoken_bytes = b"".join(spoken.iter_bytes())
with wave.open(io.BytesIO(spoken_bytes)) as read:
    out["spoken_seconds"] = read.getnframes() / read.getframerate()

images = client.images.generate(model=model, prompt="a cat", n=2, size="32x16")
assert all(base64.b64decode(image.b64_json).startswith(b"\x89PNG") for image in images.data)
out["images"] = len(images.data)

try:
    client.images.generate(model=model, prompt="a cat", n=11)
except openai.BadRequestError as error:
    out["refused"] = error.body["param"]

try:
    client.audio.transcriptions.create(model="nobody", file=recording)
except openai.NotFoundError as error:
    out["unknown"] = error.code

print(json.dumps(out))
