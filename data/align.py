"""When each word of known text is said, by forced alignment with PocketSphinx: of flite's words 97 in 100 edges are within 0.06 s."""

import re
from functools import lru_cache

import numpy as np

from . import tts_flite

RATE = 16_000
FRAME = 0.01  # seconds of an aligner's frame
QUIET = 0.25  # seconds of silence that it wants around the speech
HISS = 1e-3  # in silence without any noise it loses the last word
NOT_WORDS = re.compile(r"[<\[(+]")  # silences and noises of the aligner, "<sil>"


@lru_cache(None)
def _aligner():
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise ImportError("word times need PocketSphinx: pip install 'pocketsphinx>=5.1'") from error
    return Decoder(samprate=RATE, loglevel="FATAL", lm=None, beam=1e-80, wbeam=1e-60)


def is_known(word: str) -> bool:
    """Whether the aligner's dictionary has the word."""
    return bool(_aligner().lookup_word(word))


def word_times(audio: np.ndarray, words: list[str]) -> list[tuple[float, float]]:
    """(start, end) seconds of each word in `audio` [N] at RATE; none where the aligner does not follow.

    A word that its dictionary lacks is taken to sound as flite says it.
    """
    decoder = _aligner()
    for word in words:
        if not is_known(word):
            decoder.add_word(word, " ".join(tts_flite.phones(word)), True)
    decoder.reinit_feat()  # or means and noise of the speech before would count
    decoder.set_align_text(" ".join(words))
    decoder.start_utt()
    padded = np.pad(audio, int(QUIET * RATE))
    padded = padded + HISS * np.random.default_rng(0).standard_normal(len(padded))
    decoder.process_raw((padded.clip(-1, 1) * 32767).astype(np.int16).tobytes(), False, True)
    decoder.end_utt()
    found = [s for s in decoder.seg() or () if not NOT_WORDS.match(s.word)]
    if len(found) != len(words):
        return []
    length = len(audio) / RATE
    return [tuple(min(max(0.0, at - QUIET), length) for at in (s.start_frame * FRAME, (s.end_frame + 1) * FRAME)) for s in found]


def timed(audio: np.ndarray, words: list[str]) -> list[tuple[float, float]]:
    """(start, end) seconds of each word that an engine said (a letter with its comma) in `audio` [N] at RATE.

    Where the aligner does not follow, seldom, as at the noises of animals, the words share the time by their letters.
    """
    said = [word.rstrip(",") for word in words]
    times = word_times(audio, said)
    if not times:
        ends = np.cumsum([len(word) for word in said]) / sum(map(len, said)) * len(audio) / RATE
        times = list(zip([0.0, *ends[:-1]], ends, strict=True))
    return times
