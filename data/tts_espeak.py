"""espeak-ng through its C library: word times from its word and phoneme events."""

import ctypes as C
import ctypes.util
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from .accents import changes

WORD, END, PHONEME = 1, 6, 7  # espeak_EVENT_TYPE
SYNCHRONOUS, PHONEME_EVENTS = 2, 1
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER
NATIVE_RATE = 165  # words a minute at voice.rate 1
MNEMONICS = {  # of the CMU dictionary's phones, where espeak's own is another
    "iy": "i:", "ih": "I", "eh": "E", "ae": "a", "aa": "A:", "ao": "O:", "ah": "V", "uh": "U", "uw": "u:", "er": "3:",
    "ey": "eI", "ay": "aI", "oy": "OI", "ow": "oU", "aw": "aU",
    "th": "T", "dh": "D", "ng": "N", "sh": "S", "ch": "tS", "jh": "dZ", "zh": "Z",
}  # fmt: skip


class _Id(C.Union):
    _fields_ = [("number", C.c_int), ("name", C.c_char_p), ("string", C.c_char * 8)]


class _Event(C.Structure):
    _fields_ = [
        ("type", C.c_int),
        ("identifier", C.c_uint),
        ("text_position", C.c_int),
        ("length", C.c_int),
        ("audio_position", C.c_int),
        ("sample", C.c_int),
        ("user_data", C.c_void_p),
        ("id", _Id),
    ]


class _VoiceFile(C.Structure):
    _fields_ = [("name", C.c_char_p), ("languages", C.c_char_p), ("identifier", C.c_char_p)]  # and more, which is not read


_CALLBACK = C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.POINTER(_Event))


class _Espeak:
    """The library and what its callback hands over.

    Each utterance is spoken in a forked child: the synthesiser keeps phases and random numbers between calls,
    and the same text must give the same bytes whatever was said before.
    """

    def __init__(self) -> None:
        found = ctypes.util.find_library("espeak-ng")
        if found is None:
            raise OSError("libespeak-ng is missing; on Debian and Ubuntu: apt-get install espeak-ng")
        self.lib = C.CDLL(found)
        self.rate = self.lib.espeak_Initialize(SYNCHRONOUS, 0, None, PHONEME_EVENTS)
        self.chunks: list[bytes] = []
        self.events: list[tuple[int, int, int, str]] = []  # type, text position from 0, sample, phoneme
        self.callback = _CALLBACK(self._receive)
        self.lib.espeak_SetSynthCallback(self.callback)
        self.lib.espeak_GetCurrentVoice.restype = C.POINTER(_VoiceFile)
        folder = C.c_char_p()
        self.lib.espeak_Info(C.byref(folder))
        self.data = Path(folder.value.decode())

    def _receive(self, wave, count, events) -> int:
        if count > 0:
            self.chunks.append(C.string_at(wave, count * 2))
        i = 0
        while events[i].type != 0:
            event = events[i]
            phoneme = event.id.string.decode(errors="replace") if event.type == PHONEME else ""
            self.events.append((event.type, event.text_position - 1, event.sample, phoneme))
            i += 1
        return 0

    def _accented(self, name: str, accent: int) -> str:
        """The voice file of the voice `name`, as it is with an accent."""
        base, variant = name.split("+")
        self.lib.espeak_SetVoiceByName(base.encode())
        own = (self.data / "lang" / self.lib.espeak_GetCurrentVoice().contents.identifier.decode()).read_text()
        timbre = (self.data / "voices" / "!v" / variant).read_text().splitlines()
        said = [f"replace 00 {MNEMONICS.get(a, a)} {MNEMONICS.get(b, b)}" for a, b in changes(accent).items()]
        return "\n".join([own, *said, *(line for line in timbre if not line.startswith(("name", "language"))), ""])

    def _set_voice(self, voice) -> None:
        if not voice.accent:
            failed = self.lib.espeak_SetVoiceByName(voice.name.encode())
        else:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(self._accented(voice.name, voice.accent))
                file.flush()
                failed = self.lib.espeak_SetVoiceByFile(file.name.encode())
        if failed:
            raise ValueError(f"espeak-ng has no voice {voice.name!r}")

    def _say(self, text: str, voice) -> None:
        self._set_voice(voice)
        for parameter, value in (
            (RATE, NATIVE_RATE * voice.rate),
            (PITCH, voice.pitch),
            (RANGE, voice.range),
        ):
            self.lib.espeak_SetParameter(parameter, round(value), 0)
        data = text.encode() + b"\0"
        self.lib.espeak_Synth(data, C.c_size_t(len(data)), 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()

    def say(self, text: str, voice) -> tuple[np.ndarray, list]:
        """float32 audio and the events."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                C.CDLL(None).srand(1)  # the child inherits the random state of its parent
                self._say(text, voice)
                with os.fdopen(write, "wb") as pipe:
                    pipe.write(json.dumps(self.events).encode() + b"\n" + b"".join(self.chunks))
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            events, audio = pipe.readline(), pipe.read()
        os.waitpid(child, 0)
        if not audio:
            raise ValueError(
                f"espeak-ng said nothing of {text!r} as {voice.name!r}: is this voice installed?"
            )
        return np.frombuffer(audio, np.int16).astype(np.float32) / 32768, json.loads(events)


_espeak = lru_cache(None)(_Espeak)


def _starts(words: list[str], events: list) -> list[float | None]:
    """First sample of each word, from the offsets of the word events; None where words were run together."""
    offsets = np.cumsum([0] + [len(w) + 1 for w in words])
    starts: list[float | None] = [None] * len(words)
    for kind, position, sample, _ in events:
        if kind == WORD:
            i = int(np.searchsorted(offsets, position, side="right")) - 1
            if (
                0 <= i < len(words)
                and starts[i] is None
                and not (i and words[i - 1][-1] == "," and position < offsets[i])
            ):
                starts[i] = sample
    return starts


def _fill(words: list[str], starts: list[float | None], total: float) -> list[float]:
    """Words that espeak ran together ("of the") share the span of their group by their letters."""
    starts = [0.0 if i == 0 and s is None else s for i, s in enumerate(starts)]
    i = 0
    while i < len(words):
        j = i + 1
        while j < len(words) and starts[j] is None:
            j += 1
        end = starts[j] if j < len(words) else total
        letters = np.cumsum([len(w) for w in words[i:j]])
        for k in range(i + 1, j):
            starts[k] = starts[i] + (end - starts[i]) * letters[k - i - 1] / letters[-1]
        i = j
    return starts


def speak(words: list[str], voice) -> tuple[np.ndarray, int, list[tuple[float, float]]]:
    """-> float32 audio at espeak's own rate, that rate, (start, end) seconds per word."""
    espeak = _espeak()
    audio, events = espeak.say(" ".join(words), voice)
    pauses = [sample for kind, _, sample, phoneme in events if kind == PHONEME and phoneme.startswith("_")]
    last = max((p for p in pauses[-2:-1]), default=len(audio))
    starts = _fill(words, _starts(words, events), last)
    times = []
    for i, start in enumerate(starts):
        limit = starts[i + 1] if i + 1 < len(words) else len(audio)
        end = min([p for p in pauses if start < p <= limit], default=limit)
        times.append((start / espeak.rate, end / espeak.rate))
    return audio, espeak.rate, times
