"""Voice: does the model sound like the reference? On voices that training never heard, half of them like people's."""

from typing import Any

import numpy as np
import torch

from michiai.data.tts import sample_voice, synthesise
from michiai.data.words import sentence_of

from .items import RATE, reference, rng_of
from .referees import at_rate, embed_speaker

VOICES = ("af_nova", "am_puck", "bf_lily", "bm_daniel", "heart", "slt", "rms", "awb")  # each as often; the first four are whole unseen


def run_voice(model: Any, seed: int, index: int) -> dict:
    """A sentence in a held-out voice, by the model and by the teacher."""
    rng = rng_of(seed, "voice", index)
    voice = sample_voice(rng, "test", "model", only=VOICES)
    ref, text = reference(rng, voice), f"{sentence_of(rng, 'test')} {sentence_of(rng, 'test')}"
    with torch.inference_mode():
        sound = model.speak(text, voice=model.voice((ref, RATE)), seed=seed + index)
    return {
        "voice": voice.id,
        "sex": voice.sex,
        "reference": embed_speaker(ref),
        "clone": embed_speaker(at_rate(sound.numpy(), model.config.sampling_rate)),
        "teacher": embed_speaker(synthesise(text, voice).audio),
    }


def summarise(rows: list[dict]) -> dict:
    """Mean similarity to the reference beside that to references of other voices of the same sex."""
    own, others, top, top_others = [], [], [], []
    for row in rows:
        rest = [r["reference"] for r in rows if r["sex"] == row["sex"] and r["voice"] != row["voice"]]
        own.append(float(row["clone"] @ row["reference"]))
        top.append(float(row["teacher"] @ row["reference"]))
        others += [float(row["clone"] @ r) for r in rest]
        top_others += [float(row["teacher"] @ r) for r in rest]
    if not others:
        return {
            "voices": len(rows),
            "similarity": float(np.mean(own)) if own else None,
            "others": None,
            "margin": None,
        }
    return {
        "voices": len(rows),
        "similarity": float(np.mean(own)),
        "others": float(np.mean(others)),
        "margin": float(np.mean(own) - np.mean(others)),
        "teacher_similarity": float(np.mean(top)),
        "teacher_margin": float(np.mean(top) - np.mean(top_others)),
    }
