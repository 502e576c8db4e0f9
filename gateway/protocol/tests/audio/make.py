"""Makes the sounds of this folder: 2.5 s of a quiet tone in every format, by FFmpeg's encoders (pip install av numpy)."""

from pathlib import Path

import av
import numpy

HERE = Path(__file__).parent
SECONDS = 2.5


def tone(rate):
    time = numpy.arange(int(SECONDS * rate)) / rate
    return (numpy.sin(2 * numpy.pi * 220 * time) * 8000).astype(numpy.int16)


def encode(name, codec, rate, form=None, options=None, bit_rate=16000, container=None, layout="mono"):
    with av.open(str(HERE / name), "w", format=form, options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.codec_context.layout = layout
        stream.codec_context.bit_rate = bit_rate
        channels = 2 if layout == "stereo" else 1
        samples = tone(rate)
        for start in range(0, len(samples), 1024):
            piece = samples[start : start + 1024].repeat(channels)
            frame = av.AudioFrame.from_ndarray(piece[None, :], format="s16", layout=layout)
            frame.rate = rate
            frame.pts = start
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


encode("cbr.mp3", "libmp3lame", 16000)
encode("vbr.mp3", "libmp3lame", 44100, options={"q": "9"})
encode("tone.flac", "flac", 8000)
encode("opus.ogg", "libopus", 48000, form="ogg")
encode("vorbis.ogg", "vorbis", 16000, form="ogg", bit_rate=32000, options={"strict": "-2"}, layout="stereo")
encode("tone.m4a", "aac", 16000, form="ipod")
encode("tone.aac", "aac", 16000, form="adts")
encode("tone.webm", "libopus", 48000, form="webm")
# As a browser records: to a stream that cannot be sought, so no duration is known.
encode("live.webm", "libopus", 48000, form="webm", container={"live": "1"})
encode("fragmented.m4a", "aac", 16000, form="mp4", container={"movflags": "frag_keyframe+empty_moov"})
for path in sorted(HERE.iterdir()):
    print(path.name, path.stat().st_size)
