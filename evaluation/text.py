"""Text: how well the backbone still predicts plain text, beside the same LLM before it learned to speak."""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from michiai.data.grammar import make_script
from michiai.data.text import dialogue_text

from .items import rng_of

PREFIX = "backbone."


@torch.inference_mode()
def answer_perplexity(model: Any, seed: int, dialogues: int = 100) -> float:
    """Perplexity per token of the answers in held-out text dialogues, each with its `<done>`."""
    nll, count = 0.0, 0
    turn, done = (model.config.special_tokens[name] for name in ("<turn>", "<done>"))
    for i in range(dialogues):
        rng = rng_of(seed, "text", i)
        ids = torch.tensor(
            [model.tokenizer(dialogue_text(make_script(rng, "test", "plain"), rng))["input_ids"][:320]]
        )
        logits = model.backbone.text_logits(model.backbone(model.backbone.embed_text(ids)))[0, :-1].float()
        opened, closed = (ids[0] == turn).cumsum(0), (ids[0] == done).cumsum(0)
        own = (opened > closed)[:-1]  # the token after an open turn's position
        nll += float(F.cross_entropy(logits[own], ids[0, 1:][own], reduction="sum"))
        count += int(own.sum())
    return math.exp(nll / max(1, count))


def run_text(model: Any, seed: int, checkpoint: str | None) -> dict:
    """Perplexity after speech training and, with weights of the text stage, before it."""
    result = {"perplexity": answer_perplexity(model, seed)}
    if checkpoint is None:
        return result
    if not Path(checkpoint).is_file():
        raise ValueError(
            f"--text-checkpoint is {checkpoint!r}; expected the model.safetensors of the text stage"
        )
    weights = {
        name[len(PREFIX) :]: tensor
        for name, tensor in load_file(checkpoint).items()
        if name.startswith(PREFIX)
    }
    kept = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    try:
        missing = model.backbone.load_state_dict(weights, strict=False).missing_keys
        if lacks := [name for name in missing if name.startswith("language_model.model.")]:
            raise ValueError(f"--text-checkpoint is {checkpoint!r}, which lacks {lacks[:3]}; expected the text stage's weights of this LLM")
        return result | {"before": answer_perplexity(model, seed)}
    finally:
        model.backbone.load_state_dict(kept)
