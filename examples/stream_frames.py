"""A live session, frame by frame, with text that arrives while it runs: python examples/stream_frames.py [MODEL]"""

import sys
from pathlib import Path

import soundfile
from transformers import AutoModel

here = Path(__file__).resolve().parent
model = AutoModel.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else str(here.parent), trust_remote_code=True)
pcm, rate = soundfile.read(here / "question.wav", dtype="int16")

with model.session(instructions="Your name is Nora.", seed=1) as session:
    session.inject("The train to Paris leaves at nine.")  # costs compute, not audio time
    slowest = 0.0
    for start in range(0, len(pcm), 960):  # chunks of any size, as a microphone gives them
        for frame in session.push(pcm[start : start + 960], sampling_rate=rate):
            slowest = max(slowest, frame.compute_seconds)
            if frame.text or frame.user_text:
                print(f"{frame.index * 0.08:5.2f} s  heard {frame.user_text!r:12} says {frame.text!r:12} "
                      f"finished? {frame.turn_probability:.2f}")
    print(f"{session.index} frames, the slowest in {slowest * 1000:.0f} ms (a frame lasts 80 ms)")
