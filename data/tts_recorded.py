"""Recordings of people as if they were a speech engine: word times by forced alignment with PocketSphinx."""

import json
import re
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from .align import RATE, is_known, word_times
from .held_out import belongs
from .words import TEST_NAMES


def _words(text: str) -> list[str]:
    """Plain words of what was said; none where there is more in it than words (digits, JSON, abbreviations)."""
    words = re.sub(r"[.,!?;:\"-]+( |$)", " ", text.lower().replace("\u2019", "'")).split()
    return words if all(re.fullmatch(r"[a-z]+(?:'[a-z]+)?", word) for word in words) else []


@lru_cache(1)
def read_recordings(folder: Path, split: str) -> tuple[tuple[str, str, str], ...]:
    """(speaker, path, text) of the English recordings of a split's speakers, without those whose words the aligner does not know.

    Args:
        folder: holds `manifest.jsonl`, a line per recording: path, speaker, lang, text.
    """
    manifest = folder / "manifest.jsonl"
    if not manifest.exists():
        raise ValueError(f"--speech is {str(folder)!r} without a manifest.jsonl; expected a line per recording: path, speaker, lang, text")
    found = []
    for line in map(json.loads, manifest.read_text().splitlines()):
        words = _words(line["text"]) if line["lang"] == "en" and belongs(f"speaker|{line['speaker']}", split) else []
        if words and all(map(is_known, words)) and not set(words) & set(TEST_NAMES):
            found.append((line["speaker"], str(folder / line["path"]), " ".join(words)))
    if not found:
        raise ValueError(f"{manifest} has no English recording of a {split} speaker with its words; expected lang \"en\" and a text")
    return tuple(found)


@lru_cache(8)
def align(path: str, text: str) -> tuple[np.ndarray, tuple[tuple[float, float], ...]]:
    """float32 audio [N] at RATE and (start, end) seconds per word; no times where the aligner does not follow."""
    audio, rate = soundfile.read(path, dtype="float32")
    common = gcd(rate, RATE)
    audio = resample_poly(audio, RATE // common, rate // common)
    audio = audio.clip(-1, 1).astype(np.float32)
    return audio, tuple(word_times(audio, text.split()))


def is_aligned(path: str, text: str) -> bool:
    """Whether every word's time is found."""
    return len(align(path, text)[1]) == text.count(" ") + 1


def speak(words: list[str], voice) -> tuple[np.ndarray, int, list[tuple[float, float]]]:
    """The recording that `voice.name` is the path of -> float32 audio, its rate, (start, end) seconds per word."""
    audio, times = align(voice.name, " ".join(word.rstrip(",") for word in words))
    return audio, RATE, list(times)
