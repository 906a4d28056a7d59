"""SVOX Pico (a US and a British woman), word times by forced alignment: more human in timbre than the rest, at over 100 x real time."""

from functools import lru_cache

import numpy as np

from .align import RATE, timed

VOICES = {"pico_us": "en-US", "pico_gb": "en-GB"}
NATIVE_F0 = {"pico_us": 170.0, "pico_gb": 180.0}  # measured medians, Hz
FIXED_F0 = ()


@lru_cache(None)
def _pico():
    try:
        import ttspico
    except ImportError as error:
        raise ImportError("training dialogues need SVOX Pico: pip install ttspico, which needs gcc and python3-dev") from error
    return ttspico


def speak(words: list[str], voice) -> tuple[np.ndarray, int, list[tuple[float, float]]]:
    """-> float32 audio at RATE, that rate, (start, end) seconds per word. `voice.range` has no effect."""
    engine = _pico().TtsEngine(VOICES[voice.name])  # a new one: what it said before changes what it says next
    engine.pitch = round(100 * voice.pitch / voice.warp / NATIVE_F0[voice.name])
    engine.rate = round(100 * voice.rate / voice.warp)
    engine.volume = 60  # at 100 it clips
    audio = np.frombuffer(engine.speak(" ".join(words)), np.int16).astype(np.float32) / 32768
    return audio, RATE, timed(audio, words)
