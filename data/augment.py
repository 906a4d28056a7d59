"""What a microphone adds to the user's voice: gain, a small room, noise, the loudspeaker's echo.

Kinds and ranges follow Moshi's training (arXiv 2410.00037, section 4.2), milder.
"""

import numpy as np
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve, lfilter

RATE = 16_000
ROOM_DECAY = (0.12, 0.4)  # seconds in which a room's tail falls by 60 dB
ROOM_BELOW = (6.0, 18.0)  # dB of the tail under the direct sound
KINDS = ("none", "white", "pink", "brown", "hum", "babble")


def coloured(n: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of rms 1 whose power falls with frequency to the power `slope` (0 white, 1 pink, 2 brown)."""
    size = next_fast_len(n, real=True)
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 40.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * frequency ** (-slope / 2), size)[:n]
    return noise / noise.std()


def hum(n: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum of rms 1: 50 or 60 Hz with odd and even harmonics, over a little pink noise."""
    t, base = np.arange(n) / RATE, (50.0, 60.0)[int(rng.integers(2))]
    tone = sum(
        rng.uniform(0.2, 1) / k * np.sin(2 * np.pi * (base * k * t + rng.random())) for k in range(1, 9)
    )
    noise = tone / tone.std() + 0.3 * coloured(n, 1, rng)
    return noise / noise.std()


def crowd(n: int, voices: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Babble of rms 1: each voice repeated from anywhere, some backwards: nobody can be understood."""
    total = np.zeros(n)
    for i, voice in enumerate(voices):
        looped = np.resize(np.roll(voice[::-1] if i % 2 else voice, int(rng.integers(len(voice)))), n)
        total += looped * rng.uniform(0.5, 1)
    return total / (total.std() + 1e-9)


def noise_of(kind: str, n: int, rng: np.random.Generator, babble: list[np.ndarray] | None) -> np.ndarray:
    """float64 [n] of rms 1."""
    if kind == "babble":
        return crowd(n, babble, rng)
    if kind == "hum":
        return hum(n, rng)
    return coloured(n, {"white": 0.0, "pink": 1.0, "brown": 2.0}[kind], rng)


def knocks(n: int, rng: np.random.Generator) -> np.ndarray:
    """A few knocks and clicks: short decaying bursts of low-passed noise, peak about 1."""
    out = np.zeros(n)
    for _ in range(int(rng.integers(0, 6))):
        m = int(RATE * rng.uniform(0.03, 0.12))
        burst = lfilter([0.3], [1, -0.7], rng.standard_normal(m)) * np.exp(-np.arange(m) / (m / 5))
        at = int(rng.integers(0, max(1, n - m)))
        out[at : at + m] += burst[: n - at] * rng.uniform(0.2, 1)
    return out


def room(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A small room: the direct sound and a decaying tail of noise."""
    n = int(rng.uniform(*ROOM_DECAY) * RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[: int(0.002 * RATE)] = 0
    tail *= 10 ** (-rng.uniform(*ROOM_BELOW) / 20) / np.sqrt((tail**2).sum())
    return audio + fftconvolve(audio, tail)[: len(audio)]


def microphone(
    audio: np.ndarray,
    rng: np.random.Generator,
    kind: str,
    level: float,
    babble: list[np.ndarray] | None,
    noisy: bool,
) -> np.ndarray:
    """What is recorded of `audio` [N], speech at `level` rms: room, gain -18..+6 dB, noise.

    The noise is 10-35 dB below the speech; where `noisy`, 3-20 dB, and somebody knocks.
    """
    out = room(audio, rng) if rng.random() < 0.5 else audio.astype(np.float64)
    if noisy and kind == "none":
        kind = "pink"
    if kind != "none":
        ratio = rng.uniform(3, 20) if noisy else rng.uniform(10, 35)
        out = out + noise_of(kind, len(audio), rng, babble) * level * 10 ** (-ratio / 20)
    if noisy:
        out = out + knocks(len(audio), rng) * 0.3
    return (out * 10 ** (rng.uniform(-18, 6) / 20)).astype(np.float32)


def echo(model: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The model's voice back from the loudspeaker: gain 0.05-0.3, 100-400 ms later, low-passed."""
    delay = int(rng.uniform(0.1, 0.4) * RATE)
    pole = rng.uniform(0.2, 0.6)
    late = np.zeros_like(model)
    late[delay:] = lfilter([1 - pole], [1, -pole], model[: len(model) - delay])
    return late * rng.uniform(0.05, 0.3)
