"""A tiny random model and something like speech."""

from pathlib import Path

import numpy as np
import torch

from michiai.configuration_michiai import MichiAIConfig
from michiai.modeling_michiai import MichiAIModel

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "text_config": {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
                    "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0},
    "codec_config": {"mel_bins": 20, "width": 16, "depth": 1, "latent_dim": 6},
    "listen_config": {"mel_bins": 20, "conv_width": 16, "width": 16, "layers": 2, "heads": 2, "window": 9},
    "speak_config": {"width": 16, "depth": 2, "time_features": 8},
    "vocoder_config": {"width": 16, "depth": 1, "upsample_widths": [8], "resblock_kernels": [3], "resblock_dilations": [1, 3]},
    "window": 30,
    "text_window": 60,
    "max_prompt": 128,
}  # fmt: skip


def tiny_config(vocab_size: int = 400, **changes: object) -> MichiAIConfig:
    """The smallest configuration that has all parts."""
    values = TINY | changes
    return MichiAIConfig(**values | {"text_config": values["text_config"] | {"vocab_size": vocab_size}})


def tiny_model(vocab_size: int = 400, seed: int = 0, **changes: object) -> MichiAIModel:
    """A random model that talks: its embeddings are large, so that its choices vary."""
    torch.manual_seed(seed)
    model = MichiAIModel(tiny_config(vocab_size, **changes)).eval()
    with torch.no_grad():
        for p in model.backbone.language_model.parameters():
            p.mul_(4.0 if p.ndim > 1 else 1.0)
        for projection in (model.backbone.listen_proj, model.backbone.latent_proj):
            projection.weight.normal_(0, 0.3)
        model.backbone.gate.bias.copy_(torch.tensor([0.0, 1.0, 0.5, -6.0]))
        model.default_voice.normal_()
        model.listen.gates.bias.fill_(0.3)
    return model


def speech(seconds: float = 2.0, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """Something like speech: a modulated buzz with noise, float32 [N]."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * 130 * k * t + k) / k for k in range(1, 12))
    return (0.15 * buzz * (1 + np.sin(2 * np.pi * 3 * t)) / 2 + 0.01 * rng.standard_normal(len(t))).astype(
        np.float32
    )


def error(measured: torch.Tensor, wanted: torch.Tensor) -> float:
    """Root mean square error over the deviation."""
    measured, wanted = measured.detach(), wanted.detach()
    return float((measured - wanted).square().mean().sqrt() / wanted.std())


def said(frames: list) -> tuple:
    """All that a conversation gave, to be compared bit for bit."""
    return torch.cat([f.audio for f in frames]), [
        (f.index, f.text, f.user_text, f.speaking, f.turn_probability) for f in frames
    ]


def same(a: list, b: list) -> bool:
    (sound, rest), (other, others) = said(a), said(b)
    return torch.equal(sound, other) and rest == others
