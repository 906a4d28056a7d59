"""Sounds that no synthesiser here makes: breath, laughter, a cough, a hum. Noise and arithmetic."""

import numpy as np
from scipy.signal import lfilter

RATE = 16_000
SOUNDS = ("<laugh>", "<breath>", "<cough>", "<hm>")
LEVEL = {"<laugh>": 0.0, "<breath>": -14.0, "<cough>": 2.0, "<hm>": -3.0}  # dB against the voice's speech


def _resonator(x: np.ndarray, frequency: float, bandwidth: float) -> np.ndarray:
    """Two-pole resonance (Klatt 1980), gain 1 at its peak, roughly."""
    r = np.exp(-np.pi * bandwidth / RATE)
    a = [1.0, -2 * r * np.cos(2 * np.pi * frequency / RATE), r * r]
    return lfilter([(1 - r) * 2 * np.sin(2 * np.pi * frequency / RATE) + 1e-3], a, x)


def _formants(x: np.ndarray, frequencies: tuple[float, ...], warp: float) -> np.ndarray:
    return sum(_resonator(x, f * warp, 60 + 0.07 * f) / (i + 1) ** 0.7 for i, f in enumerate(frequencies))


def _hump(n: int, attack: float = 0.3) -> np.ndarray:
    """Rise over the first `attack` of n samples, then fall: half-cosine flanks."""
    up = max(1, int(n * attack))
    return np.concatenate(
        [
            0.5 - 0.5 * np.cos(np.pi * np.arange(up) / up),
            0.5 + 0.5 * np.cos(np.pi * np.arange(n - up) / (n - up)),
        ]
    )


def _voiced(f0: np.ndarray, rng: np.random.Generator, breathy: float) -> np.ndarray:
    """A glottal pulse train of the contour `f0` (Hz per sample) with some noise in its open phase."""
    phase = np.cumsum(f0 * (1 + 0.01 * rng.standard_normal(len(f0)))) / RATE % 1.0
    pulse = np.where(phase < 0.6, np.sin(np.pi * phase / 0.6) ** 2, 0.0)
    return np.diff(pulse, prepend=0.0) + breathy * pulse * rng.standard_normal(len(f0)) * 0.1


def breath(rng: np.random.Generator, f0: float, warp: float) -> np.ndarray:
    """An audible inhalation: noise through a wide vocal tract, rising slowly and ending faster."""
    n = int(RATE * rng.uniform(0.28, 0.5))
    return _formants(rng.standard_normal(n), (600, 1700, 2700, 3900), warp) * _hump(
        n, rng.uniform(0.55, 0.75)
    )


def laugh(rng: np.random.Generator, f0: float, warp: float) -> np.ndarray:
    """Three to six "ha": a breathy onset, then a voiced burst; pitch and strength fall."""
    parts, count = [], int(rng.integers(3, 7))
    vowel = ((700, 1250, 2500, 3500), (560, 1500, 2500, 3500), (450, 1900, 2600, 3600))[int(rng.integers(3))]
    top = f0 * rng.uniform(1.25, 1.6)
    for i in range(count):
        h, v = int(RATE * rng.uniform(0.05, 0.09)), int(RATE * rng.uniform(0.07, 0.12))
        pitch = top * (1 - 0.06 * i) * np.linspace(1.05, 0.92, v)
        strength = (1.0 if i else 0.8) * 0.88**i
        parts.append(strength * 0.10 * _formants(rng.standard_normal(h), vowel, warp) * _hump(h, 0.7))
        burst = _formants(_voiced(pitch, rng, 1.0), vowel, warp)
        parts.append(strength * burst / (np.abs(burst).max() + 1e-9) * _hump(v, 0.25))
    return np.concatenate(parts)


def cough(rng: np.random.Generator, f0: float, warp: float) -> np.ndarray:
    """One or two sharp bursts of noise, each with a decaying tail."""
    parts = []
    for _ in range(int(rng.integers(1, 3))):
        n = int(RATE * rng.uniform(0.18, 0.3))
        decay = np.exp(-np.arange(n) / (RATE * rng.uniform(0.035, 0.06))) * np.minimum(1, np.arange(n) / 60)
        parts += [
            _formants(rng.standard_normal(n), (550, 1300, 2500, 3700), warp) * decay,
            np.zeros(int(RATE * 0.05)),
        ]
    return np.concatenate(parts[:-1])


def hum(rng: np.random.Generator, f0: float, warp: float) -> np.ndarray:
    """A short nasal "hm" with a small rise and fall of the pitch."""
    n = int(RATE * rng.uniform(0.3, 0.45))
    pitch = f0 * (1 + 0.12 * np.sin(np.pi * np.linspace(0, 1, n)) + rng.uniform(-0.05, 0.05))
    return _formants(_voiced(pitch, rng, 0.3), (260, 1100, 2200), warp) * _hump(n, 0.25)


_MAKERS = {"<laugh>": laugh, "<breath>": breath, "<cough>": cough, "<hm>": hum}


def make_sound(token: str, f0: float, warp: float, rms: float, rng: np.random.Generator) -> np.ndarray:
    """float32 at 16 kHz; `f0` and `warp` as the voice's, loudness relative to its speech of level `rms`."""
    audio = _MAKERS[token](rng, f0, warp)
    loud = audio[np.abs(audio) > 0.05 * np.abs(audio).max()]
    audio = audio * rms * 10 ** (LEVEL[token] / 20) / (np.sqrt((loud**2).mean()) + 1e-9)
    return audio.astype(np.float32)
