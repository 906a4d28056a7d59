"""Voice: does the model sound like the reference, and is it understood? In voices that training never heard, half of them like people's."""

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


def likeness(rows: list[dict], who: str, all_rows: list[dict]) -> dict:
    """Mean similarity of "clone" or "teacher" to the reference, and its margin over references of other voices of the same sex."""
    own = [float(row[who] @ row["reference"]) for row in rows]
    others = [
        float(row[who] @ r["reference"])
        for row in rows
        for r in all_rows
        if r["sex"] == row["sex"] and r["voice"] != row["voice"]
    ]
    return {
        "similarity": float(np.mean(own)) if own else None,
        "margin": float(np.mean(own) - np.mean(others)) if others else None,
    }


def summarise(rows: list[dict]) -> dict:
    """Likeness and word errors, of the model and of the teacher, over all voices and over those of a kind."""

    def figures(some: list[dict]) -> dict:
        clone, teacher = (likeness(some, who, rows) for who in ("clone", "teacher"))
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
