"""What a client of the Realtime API sends."""

import base64

import numpy as np

from michiai.serving.realtime import RATE


def append(seconds: float, rate: int = RATE) -> dict:
    sound = np.zeros(round(seconds * rate), "<i2").tobytes()
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()}


def update(**session: object) -> dict:
    return {"type": "session.update", "session": session}


def message(**item: object) -> dict:
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "system"} | item}
