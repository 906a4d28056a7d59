"""Voice: does the model sound like the reference, and is it understood? In voices that training never heard, most of them like people's."""

from typing import Any

import numpy as np
import torch

from michiai.data.tts import sample_voice, synthesise
from michiai.data.words import sentence_of

from .items import RATE, reference, rng_of
from .referees import at_rate, embed_speaker, recognise, word_errors

NATURAL = ("af_nova", "am_puck", "bf_lily", "bm_daniel", "heart")  # of Kokoro; all but the last are whole unseen
VOICES = (*NATURAL, "slt", "rms", "awb")  # each as often


def run_voice(model: Any, seed: int, index: int) -> dict:
    """A sentence in a held-out voice, by the model and by the teacher."""
    rng = rng_of(seed, "voice", index)
    voice = sample_voice(rng, "test", "model", only=VOICES)
    ref, text = reference(rng, voice), f"{sentence_of(rng, 'test')} {sentence_of(rng, 'test')}"
    with torch.inference_mode():
        sound = model.speak(text, voice=model.voice((ref, RATE)), seed=seed + index)
    clone, teacher = at_rate(sound.numpy(), model.config.sampling_rate), synthesise(text, voice).audio
    words = text.split()
    return {
        "voice": voice.id,
        "kind": "natural" if voice.name in NATURAL else "other",
        "sex": voice.sex,
        "reference": embed_speaker(ref),
        "clone": embed_speaker(clone),
        "teacher": embed_speaker(teacher),
        "words": len(words),
        "errors": word_errors(words, recognise(clone)),
        "teacher_errors": word_errors(words, recognise(teacher)),
    }


def compared(rows: list[dict]) -> list[dict]:
    """Rows of `run_voice` with similarities in place of embeddings, so that each can be kept and resampled by itself: of "clone" and
    "teacher", a list each, to its own reference and to those of the other voices of the same sex.
    """
    found = []
    for row in rows:
        others = [r["reference"] for r in rows if r["sex"] == row["sex"] and r["voice"] != row["voice"]]
        kept = {name: value for name, value in row.items() if name not in ("reference", "clone", "teacher")}
        for who in ("clone", "teacher"):
            kept[f"{who}_own"] = float(row[who] @ row["reference"])
            kept[f"{who}_others"] = [float(row[who] @ other) for other in others]
        found.append(kept)
    return found


def likeness(rows: list[dict], who: str) -> dict:
    """Mean similarity of "clone" or "teacher" to the reference, and its margin over references of other voices of the same sex."""
    own, others = [row[f"{who}_own"] for row in rows], [value for row in rows for value in row[f"{who}_others"]]
    return {
        "similarity": float(np.mean(own)) if own else None,
        "margin": float(np.mean(own) - np.mean(others)) if others else None,
    }


def summarise(rows: list[dict]) -> dict:
    """Likeness and word errors, of the model and of the teacher, over all voices and over those of a kind.

    Args:
        rows: as `compared` leaves them.
    """

    def figures(some: list[dict]) -> dict:
        clone, teacher = (likeness(some, who) for who in ("clone", "teacher"))
        said = sum(row["words"] for row in some)
        return {
            "voices": len(some),
            **clone,
            "wer": sum(row["errors"] for row in some) / said if said else None,
            **{f"teacher_{name}": value for name, value in teacher.items()},
            "teacher_wer": sum(row["teacher_errors"] for row in some) / said if said else None,
        }

    kinds = {kind: figures([row for row in rows if row["kind"] == kind]) for kind in ("natural", "other")}
    return figures(rows) | {"kinds": kinds}
