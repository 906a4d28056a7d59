"""festival (kal and ked diphones, slt HTS) driven by Scheme on its standard input; a fresh process per
utterance (half a second), since its standard output is not flushed before it ends."""

import subprocess
import tempfile
import wave

import numpy as np
from scipy.signal import butter, sosfilt

from .accents import changes

VOICES = {"kal": "voice_kal_diphone", "ked": "voice_ked_diphone", "slt_hts": "voice_cmu_us_slt_arctic_hts"}
NATIVE_F0 = {"kal": 105.0, "ked": 105.0, "slt_hts": 175.0}
FIXED_F0 = ("slt_hts",)
_WORDS = """(mapcar (lambda (w) (format t "%s\\t%s\\t%s\\n" (item.name (item.parent (item.relation w 'Token)))
 (item.feat w "word_start") (item.feat w "word_end"))) (utt.relation.items u 'Word))"""

_ACCENT = """(set! postlex_rules_hooks (append postlex_rules_hooks (list (lambda (u) (mapcar (lambda (s)
 (let ((said (assoc (intern (item.name s)) '(%s)))) (if said (item.set_name s (cadr said))))) (utt.relation.items u 'Segment)) u))))"""


def speak(words: list[str], voice) -> tuple[np.ndarray, int, list[tuple[float, float]]]:
    """-> float32 audio at the voice's own rate, that rate, (start, end) seconds per word."""
    stretch, mean = voice.warp / voice.rate, voice.pitch / voice.warp
    scheme = [f"({VOICES[voice.name]})"]
    if voice.name not in FIXED_F0:
        scheme.append(f"(Parameter.set 'Duration_Stretch {stretch:.4f})")
        scheme.append(
            f"(set! int_lr_params '((target_f0_mean {mean:.1f}) (target_f0_std {14 * voice.range:.1f})"
            " (model_f0_mean 170) (model_f0_std 34)))"
        )
    if voice.accent:
        scheme.append(_ACCENT % " ".join(f"({phone} {said})" for phone, said in changes(voice.accent).items()))
    text = " ".join("ay," if w == "a," else w for w in words)  # a lone "a" would be read as the article
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        scheme += [
            f'(set! u (utt.synth (Utterance Text "{text}")))',
            f'(utt.save.wave u "{file.name}" \'riff)',
            _WORDS,
        ]
        said = subprocess.run(
            ["festival", "--pipe"], input="\n".join(scheme), capture_output=True, text=True, timeout=60
        )
        with wave.open(file.name) as sound:
            rate = sound.getframerate()
            audio = np.frombuffer(sound.readframes(sound.getnframes()), np.int16).astype(np.float32) / 32768
    highpass = butter(2, 50, "highpass", fs=rate, output="sos")  # kal drifts off zero
    audio = sosfilt(highpass, audio).astype(np.float32)
    rows = [line.split("\t") for line in said.stdout.splitlines() if line.count("\t") == 2]
    return audio, rate, _align(text.replace(",", "").split(), rows)


def _align(words: list[str], rows: list[list[str]]) -> list[tuple[float, float]]:
    """One (start, end) per word of ours: a token may be several words of festival's ("it", "'s")."""
    times, i = [], 0
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if i >= len(rows) or rows[i][0] != word:
            raise ValueError(f"festival read {rows[i : i + 1]} where {word!r} was expected")
        start, end = float(rows[i][1]), float(rows[i][2])
        seen = 1
        i += 1
        while i < len(rows) and rows[i][0] == word and (
            word != following or (seen < 2 and (float(rows[i][2]) == 0 or "'" in word))
        ):
            end = max(end, float(rows[i][2]))
            seen += 1
            i += 1
        times.append((start, end))
    return times
