"""Voices and speech: one `synthesise` over flite, espeak-ng, festival, Pico and Kokoro, with the times of every word.

A voice is an engine's voice plus quantised settings (vocal tract warp, pitch, range, rate) and an accent, which half of the users of
training have (`accents`); `id` tells all.
Held-out voices, which the training data never holds:
- flite, Pico, festival kal and the rest of Kokoro: settings whose hash (engine, name, sex, warp, pitch) falls in one seventh;
- espeak-ng: the accents and the voice variants of HELD_OUT_ACCENTS and HELD_OUT_VARIANTS;
- festival ked and four of Kokoro's: the whole voice, and every mean that it is in.
The test split draws from these alone, the training split never.
"""

from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
from scipy.signal import resample

from . import accents, sounds, tts_espeak, tts_festival, tts_flite, tts_kokoro, tts_pico, tts_recorded

RATE = 16_000
LEVEL = 10 ** (-23 / 20)  # rms of speech, full scale 1
ENGINES = {
    "flite": tts_flite,
    "espeak": tts_espeak,
    "festival": tts_festival,
    "pico": tts_pico,
    "kokoro": tts_kokoro,
    "recorded": tts_recorded,
}
ACCENTS = ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-x-gbclan", "en-us-nyc", "en-029")
HELD_OUT_ACCENTS = ("en-gb-scotland", "en-gb-x-gbcwmd")
VARIANTS = {
    "F": ("f1", "f2", "f3", "f4", "belinda", "linda", "steph", "Annie", "anika", "aunty"),
    "M": ("m1", "m2", "m3", "m4", "m5", "m6", "m8", "Alex", "Andy", "Denis", "Lee", "Mike", "max", "Michael"),
}
HELD_OUT_VARIANTS = {"F": ("f5", "Andrea", "steph2"), "M": ("m7", "Gene", "david")}
KOKORO = tts_kokoro.FIXED_F0
HELD_OUT_VOICES = ("ked", "af_nova", "am_puck", "bf_lily", "bm_daniel")  # whole
# engine voice, sex it is used as, warp (from, to), pitch in Hz (from, to)
TRACTS = {
    "slt": (("F", (0.90, 1.18), (150, 240)), ("F", (0.90, 1.18), (150, 240)), ("M", (0.82, 0.86), (95, 135))),
    "rms": (("M", (0.84, 1.16), (0, 0)),),
    "awb": (("M", (0.84, 1.12), (85, 160)), ("F", (1.14, 1.22), (170, 230))),
    "kal16": (("M", (0.86, 1.12), (80, 150)), ("F", (1.14, 1.22), (170, 220))),
    "kal": (("M", (0.86, 1.12), (80, 150)), ("F", (1.14, 1.22), (170, 220))),
    "slt_hts": (("F", (0.90, 1.18), (0, 0)),),
    "pico_us": (("F", (0.90, 1.18), (150, 240)), ("M", (0.80, 0.86), (95, 135))),
    "pico_gb": (("F", (0.90, 1.18), (150, 240)), ("M", (0.80, 0.86), (95, 135))),
    "ked": (("M", (0.90, 1.12), (80, 150)), ("F", (1.14, 1.22), (170, 220))),
    "heart": (("F", (0.90, 1.14), (150, 250)), ("M", (0.76, 0.88), (85, 145))),
    **{name: ((name[1].upper(), (0.92, 1.10), (0, 0)),) for name in KOKORO},
}
TRIES = 1000  # at a voice of the split; a seventh of most are of the test split
ACCENTED = 0.5  # of the users of training; Pico's phones cannot be changed
# (split, role) -> engine voice -> share
SHARES = {
    ("train", "user"): {
        "slt": 0.13,
        "rms": 0.10,
        "awb": 0.12,
        "kal16": 0.09,
        "espeak": 0.30,
        "kal": 0.06,
        "slt_hts": 0.04,
        "pico_us": 0.08,
        "pico_gb": 0.08,
        "heart": 0.15,
    },
    ("train", "model"): {
        "slt": 0.24,
        "rms": 0.14,
        "awb": 0.14,
        "kal16": 0.03,
        "espeak": 0.07,
        "pico_us": 0.07,
        "pico_gb": 0.07,
        "heart": 0.24,
    },
    ("test", "user"): {"slt": 0.32, "rms": 0.17, "awb": 0.26, "espeak": 0.15, "ked": 0.10},
    ("test", "model"): {"slt": 0.45, "rms": 0.25, "awb": 0.30},
}


@dataclass(frozen=True)
class VoiceSpec:
    """Who speaks. `pitch`: median Hz (espeak: 0-99); `range`: factor on the pitch movement (espeak: 0-99)."""

    engine: str  # flite | espeak | festival | pico | kokoro | recorded
    name: str
    sex: str  # F | M, as it sounds
    warp: float  # vocal tract: all formants times this
    pitch: float
    range: float
    rate: float  # speed, 1 = the engine's own
    accent: int = 0  # 0: the engine's own

    @property
    def id(self) -> str:
        settings = f"w{self.warp:.2f}:p{self.pitch:.0f}:v{self.range:g}:r{self.rate:.2f}" + (f":a{self.accent}" if self.accent else "")
        return f"{self.engine}:{self.name}:{self.sex}:{settings}"

    @property
    def f0(self) -> float:
        """Median Hz, near enough for a laugh."""
        if self.engine == "espeak":
            return (190.0 if self.sex == "F" else 105.0) * 2 ** ((self.pitch - 50) / 80)
        return self.pitch


@dataclass(frozen=True)
class Speech:
    """`audio` float32 [N] at 16 kHz; `words` (word or sound token, start, end) in seconds."""

    audio: np.ndarray
    words: list[tuple[str, float, float]]


def recorded_voice(path: str) -> VoiceSpec:
    """The voice that says what the recording at `path` holds, and nothing else."""
    return VoiceSpec("recorded", path, "-", 1.0, 0, 1.0, 1.0)


def is_whole_held_out(name: str) -> bool:
    """Whether an engine's voice, or one of the two that it is the mean of, is kept from training in all its settings."""
    return not set(HELD_OUT_VOICES).isdisjoint(name.split("+"))


def is_held_out(voice: VoiceSpec) -> bool:
    """Whether only the test split may use this voice."""
    if voice.engine == "espeak":
        accent, variant = voice.name.split("+")
        return accent in HELD_OUT_ACCENTS or variant in HELD_OUT_VARIANTS["F"] + HELD_OUT_VARIANTS["M"]
    key = f"voice|{voice.engine}|{voice.name}|{voice.sex}|{voice.warp:.2f}|{voice.pitch:.0f}"
    return is_whole_held_out(voice.name) or crc32(key.encode()) % 7 == 0


def held_out_voices() -> dict:
    """For the manifest."""
    return {
        "rule": __doc__,
        "accents": HELD_OUT_ACCENTS,
        "variants": HELD_OUT_VARIANTS,
        "voices": HELD_OUT_VOICES,
    }


def _grid(rng: np.random.Generator, low: float, high: float, step: float) -> float:
    return round(low + step * int(rng.integers(0, round((high - low) / step) + 1)), 3)


def _draw_espeak(rng: np.random.Generator, split: str, sex: str) -> VoiceSpec:
    accents, variants = ACCENTS, VARIANTS[sex]
    if split == "test" and rng.random() < 0.5:
        accents = HELD_OUT_ACCENTS
    elif split == "test":
        variants = HELD_OUT_VARIANTS[sex]
    name = f"{accents[int(rng.integers(len(accents)))]}+{variants[int(rng.integers(len(variants)))]}"
    return VoiceSpec(
        "espeak",
        name,
        sex,
        _grid(rng, 0.92, 1.08, 0.02),
        _grid(rng, 30, 70, 5),
        _grid(rng, 30, 70, 10),
        _grid(rng, 0.85, 1.1, 0.05),
    )


def _near(name: str) -> list[tuple]:
    """TRACTS near the engine's own voice, as clear as it: a recogniser's errors on slt double at warp 1.1, those on heart nowhere."""
    if name == "heart":
        return list(TRACTS[name])
    top = 1.04 if name == "slt" else 1.08
    return [
        (sex, (max(low, 0.90), min(high, top)), pitches)
        for sex, (low, high), pitches in TRACTS[name]
        if low < top and high > 0.90
    ]


def _draw(rng: np.random.Generator, rows: list[tuple], name: str, role: str) -> VoiceSpec:
    sex, warps, pitches = rows[int(rng.integers(len(rows)))]
    engine = next(e for e in ("flite", "festival", "pico", "kokoro") if name in ENGINES[e].NATIVE_F0)
    warp = _grid(rng, *warps, 0.02)
    fixed = name in ENGINES[engine].FIXED_F0
    pitch = round(ENGINES[engine].NATIVE_F0[name] * warp) if fixed else _grid(rng, *pitches, 10)
    return VoiceSpec(
        engine,
        name,
        sex,
        warp,
        pitch,
        _grid(rng, 0.7, 1.3, 0.1),
        _grid(rng, 0.85, 1.1 if role == "user" else 1.0, 0.05),
    )


def sample_voice(
    rng: np.random.Generator, split: str, role: str = "user", sex: str | None = None, only: tuple[str, ...] = ()
) -> VoiceSpec:
    """A voice of the split for the role ("user" | "model"), of one sex if asked; `only`: of these of the engines', each as likely.

    Two thirds of the model's voices are near the engine's own, in the test split all.
    """
    shares = dict.fromkeys(only, 1.0) or SHARES[split, role]
    if sex is not None:
        shares = {n: s for n, s in shares.items() if n == "espeak" or any(row[0] == sex for row in TRACTS[n])}
    names, weights = list(shares), np.array(list(shares.values()))
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    rows = [row for row in TRACTS.get(name, ()) if sex in (None, row[0])]
    if role == "model" and name != "espeak" and (split == "test" or rng.random() < 0.67):
        rows = [row for row in _near(name) if sex in (None, row[0])] or rows
    for _ in range(TRIES):
        if name == "espeak":
            voice = _draw_espeak(rng, split, sex or ("F", "M")[int(rng.integers(2))])
        else:
            voice = _draw(rng, rows, name, role)
        if is_held_out(voice) == (split == "test"):
            break
    else:
        raise ValueError(f"the voice {name!r} has no settings in the {split} split; expected another voice or split")
    if split == "train" and role == "user" and voice.engine != "pico" and rng.random() < ACCENTED:
        voice = replace(voice, accent=int(rng.integers(1, accents.ACCENTS + 1)))
    return voice


SAID_AS = {"mm": "um", "hmm": "hum", "hm": "hum"}  # the lexica would spell these out


def spell(words: list[str]) -> list[str]:
    """Runs of single letters get commas, so that they are read as letter names, apart from each other."""
    single = [len(w) == 1 and w.isalpha() for w in words]
    out = []
    for i, word in enumerate(words):
        word = SAID_AS.get(word, word)
        run = single[i] and ((i > 0 and single[i - 1]) or (i + 1 < len(words) and single[i + 1]))
        out.append(word + "," if run else word)
    return out


def to_rate(audio: np.ndarray, factor: float) -> np.ndarray:
    """`audio` in `factor` times as many samples (band-limited, by FFT)."""
    if factor == 1:
        return audio
    n = -(-len(audio) // 4096) * 4096
    padded = np.zeros(n, np.float32)
    padded[: len(audio)] = audio
    return resample(padded, round(n * factor))[: round(len(audio) * factor)].astype(np.float32)


def speech_bounds(audio: np.ndarray) -> tuple[int, int]:
    """First and past-last sample of what is louder than 38 dB below the loudest 10 ms."""
    hop = RATE // 100
    frames = audio[: len(audio) // hop * hop].reshape(-1, hop)
    rms = np.sqrt((frames**2).mean(1))
    loud = np.flatnonzero(rms > rms.max() * 10 ** (-38 / 20))
    return int(loud[0]) * hop, (int(loud[-1]) + 1) * hop


def _level(audio: np.ndarray) -> np.ndarray:
    """`audio` with its active parts at LEVEL rms."""
    hop = RATE // 100
    power = (audio[: len(audio) // hop * hop].reshape(-1, hop) ** 2).mean(1)
    active = power[power > power.max() * 10 ** (-35 / 10)]
    return np.clip(audio * LEVEL / np.sqrt(active.mean()), -0.99, 0.99).astype(np.float32)


def _phrase(words: list[str], voice: VoiceSpec, margin: float) -> Speech:
    """Plain words, without sound tokens; `margin` seconds of silence before and after the speech."""
    audio, rate, times = ENGINES[voice.engine].speak(spell(words), voice)
    if len(times) != len(words):
        raise ValueError(f"{voice.id} gave {len(times)} words for {' '.join(words)!r}")
    factor = RATE / rate / voice.warp
    stretch = 1 / voice.warp
    audio = to_rate(audio, factor)
    first, last = speech_bounds(audio)
    first = max(first, int((times[0][0] * stretch - 0.05) * RATE))  # an engine's hiss is not speech
    last = min(last, int((times[-1][1] * stretch + 0.06) * RATE))
    pad = int(margin * RATE)
    out = np.zeros(last - first + 2 * pad, np.float32)
    head, tail = min(pad, first), min(pad, len(audio) - last)
    out[pad - head : len(out) - pad + tail] = audio[first - head : last + tail]
    shift, low, high = margin - first / RATE, margin, margin + (last - first) / RATE
    spans = [
        (float(np.clip(s * stretch + shift, low, high)), float(np.clip(e * stretch + shift, low, high)))
        for s, e in times
    ]
    spans[0], spans[-1] = (low, spans[0][1]), (spans[-1][0], high)
    return Speech(
        _level(out),
        [(w.rstrip(".,"), round(s, 3), round(e, 3)) for w, (s, e) in zip(words, spans, strict=True)],
    )


def join(parts: list[Speech | float]) -> Speech:
    """Speeches and silences (seconds) one after the other."""
    audio, words, at = [], [], 0
    for part in parts:
        if isinstance(part, Speech):
            words += [(w, round(s + at / RATE, 3), round(e + at / RATE, 3)) for w, s, e in part.words]
            audio.append(part.audio)
        else:
            audio.append(np.zeros(int(part * RATE), np.float32))
        at += len(audio[-1])
    return Speech(np.concatenate(audio), words)


def synthesise(text: str, voice: VoiceSpec, margin: float = 0.03) -> Speech:
    """Speech of spoken-form `text`, which may hold sound tokens; the same for the same text and voice."""
    rng = np.random.default_rng(crc32(f"{voice.id}|{text}".encode()))
    parts, run = [], []
    for word in text.split() + [""]:
        if word and word not in sounds.SOUNDS:
            run.append(word)
            continue
        if run:
            parts.append(_phrase(run, voice, margin))
            run = []
        if word:
            sound = sounds.make_sound(word, voice.f0, voice.warp, LEVEL, rng)
            quiet = np.zeros(int(margin * RATE), np.float32)
            parts.append(
                Speech(
                    np.concatenate([quiet, sound, quiet]),
                    [(word, margin, round(margin + len(sound) / RATE, 3))],
                )
            )
    if not parts:
        raise ValueError(f"nothing to say in {text!r}")
    return join(parts)
