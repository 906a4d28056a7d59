"""Judges that know nothing of MichiAI: a recogniser, a voice detector, a speaker encoder, and a sound level.

- recogniser: PocketSphinx with its own US English model and open vocabulary, no grammar; where model and
  teacher are compared, both are heard by the same one; where faster-whisper is installed, Whisper base as well;
- voice detector: silero-vad; speaker encoder: resemblyzer (GE2E, 256-d).
"""

import os
from functools import cache
from typing import Any

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
    decoder.reinit_feat()  # or the noise of what was heard before would count
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), False, True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return words_of(hypothesis.hypstr) if hypothesis else []


@cache
def whisper() -> tuple[Any, Any] | None:
    """Whisper base (Radford et al., 2022) with its normaliser of text; None where faster-whisper is not installed.

    WHISPER in the environment: a folder of faster-whisper's with a Whisper, for where the Hub cannot be reached.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        return None
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    model = WhisperModel(os.environ.get("WHISPER", "base"), device="cpu", compute_type="int8", cpu_threads=1)
    return model, EnglishTextNormalizer({})


def whisper_errors(text: str, sounds: dict[str, np.ndarray]) -> dict[str, int]:
    """Word errors of what Whisper hears in each of `sounds` (float32 [N] at RATE), with the number of words that `text` has for it."""
    model, normalise = whisper()
    words = normalise(text).split()
    found = {"whisper_words": len(words)}
    for name, audio in sounds.items():
        parts, _ = model.transcribe(audio, language="en", beam_size=1, condition_on_previous_text=False, without_timestamps=True)
        found[name] = word_errors(words, normalise(" ".join(part.text for part in parts)).split())
    return found


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
