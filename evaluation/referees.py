"""Judges that know nothing of MichiAI: a recogniser, a voice detector, a speaker encoder, and a sound level.

- recogniser: PocketSphinx with its own US English model and open vocabulary, no grammar; where model and
  teacher are compared, both are heard by the same one;
- voice detector: silero-vad; speaker encoder: resemblyzer (GE2E, 256-d).
"""

from functools import cache

import numpy as np
import torch

from .words import word_errors as word_errors

RATE = 16_000  # that all referees want
LOUD = 0.01  # rms of 10 ms that counts as sound: -40 dB of full scale; speech is at -23 dB
GAP = 0.3  # a shorter silence does not end a stretch of sound
SHORTEST = 0.06


def words_of(text: str) -> list[str]:
    """Words to compare: no sound tokens, letters without their dots."""
    return [
        word.strip(".,?!") for word in text.lower().split() if not word.startswith("<") and word.strip(".,?!")
    ]


def segments(audio: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """(start, end) in seconds of all stretches of sound; silences shorter than GAP belong to them."""
    hop = rate // 100
    frames = audio[: len(audio) // hop * hop].reshape(-1, hop)
    found: list[list[float]] = []
    for i in np.flatnonzero(np.sqrt((frames.astype(np.float64) ** 2).mean(1)) > LOUD):
        start, end = i / 100, (i + 1) / 100
        if found and start - found[-1][1] < GAP:
            found[-1][1] = end
        else:
            found.append([start, end])
    return [(a, b) for a, b in found if b - a >= SHORTEST]


def at_rate(audio: np.ndarray, rate: int) -> np.ndarray:
    """float32 [N] at RATE."""
    if rate == RATE:
        return audio
    from michiai.processing_michiai import resample

    return resample(torch.from_numpy(audio), rate, RATE).numpy()


@cache
def _decoder():
    from pocketsphinx import Decoder

    return Decoder(samprate=RATE, loglevel="FATAL")


def recognise(audio: np.ndarray) -> list[str]:
    """What PocketSphinx hears in float32 [N] at RATE, with silence added on both sides."""
    decoder = _decoder()
    quiet = np.zeros(RATE // 4, np.float32)
    pcm = (np.clip(np.concatenate([quiet, audio, quiet]), -1, 1) * 32767).astype(np.int16)
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), False, True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return words_of(hypothesis.hypstr) if hypothesis else []


@cache
def _speaker():
    from resemblyzer import VoiceEncoder

    return VoiceEncoder("cpu", verbose=False)


def embed_speaker(audio: np.ndarray) -> np.ndarray:
    """Unit vector [256] of who speaks in float32 [N] at RATE; at least half a second of sound is needed."""
    loud = np.abs(audio).max() or 1.0
    return _speaker().embed_utterance(np.pad(audio / loud * 0.5, (0, max(0, RATE - len(audio)))))


@cache
def _detector():
    from silero_vad import load_silero_vad

    return load_silero_vad()


def is_speech(audio: np.ndarray) -> bool:
    """Whether silero-vad finds speech in float32 [N] at RATE."""
    from silero_vad import get_speech_timestamps

    return bool(
        get_speech_timestamps(
            torch.from_numpy(audio), _detector(), sampling_rate=RATE, min_speech_duration_ms=100
        )
    )
