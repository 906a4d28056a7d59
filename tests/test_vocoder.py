"""The vocoder: its own model folder, its training against discriminators, its distance measures."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from michiai.codec_michiai import AudioEncoder
from michiai.configuration_michiai import MichiAIConfig, MichiAIVocoderConfig
from michiai.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from michiai.vocoder.evaluate import word_errors
from michiai.vocoder.losses import SpectralLoss
from michiai.vocoder.train import VocoderStage
from michiai.vocoder_michiai import Vocoder, VocoderModel

ROOT = Path(__file__).resolve().parents[1]


def tiny(kind: type = MichiAIConfig) -> MichiAIConfig:
    codec = {"width": 16, "depth": 1, "latent_dim": 4}
    return kind(codec_config=codec, vocoder_config={"width": 16, "depth": 1, "upsample_widths": [8]})


def test_loads_from_a_subfolder_as_remote_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VocoderModel(tiny(MichiAIVocoderConfig)).eval()
    model.vocoder.latent_mean.fill_(0.5)
    model.config.auto_map = {
        "AutoConfig": "configuration_michiai.MichiAIVocoderConfig",
        "AutoModel": "vocoder_michiai.VocoderModel",
    }
    model.save_pretrained(tmp_path / "vocoder")
    for path in ROOT.glob("*_michiai.py"):
        shutil.copy(path, tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, subfolder="vocoder", trust_remote_code=True)
    latents = torch.randn(1, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(loaded(latents), model(latents))


def test_adversarial_gradients_stay_apart() -> None:
    torch.manual_seed(0)
    stage = VocoderStage(tiny(), AudioEncoder(tiny()).requires_grad_(False), wave_frames=3, channels=2, adversarial_from=0)
    made = torch.randn(2, 3000, requires_grad=True)
    parts = stage.adversarial(made, torch.randn(2, 3000))
    judges = list(stage.discriminators.parameters())
    grads = torch.autograd.grad(parts["verdict"], [made, *judges], allow_unused=True, retain_graph=True)
    assert grads[0] is not None and all(g is None for g in grads[1:])
    grads = torch.autograd.grad(parts["judge"], [made, *judges], allow_unused=True)
    assert grads[0] is None and all(g is not None for g in grads[1:])


def test_stage_trains_the_vocoder_and_not_the_encoder() -> None:
    torch.manual_seed(0)
    stage = VocoderStage(tiny(), AudioEncoder(tiny()).requires_grad_(False), wave_frames=3, channels=2, adversarial_from=0)
    audio = (torch.randn(2, 5 * 1280) * 2000).to(torch.int16)
    losses = stage({"audio": audio}, 0)
    losses["loss"].backward()
    assert all(p.grad is None for p in stage.codec.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in stage.vocoder.parameters())


def test_spectral_loss_is_zero_for_the_same_and_ignores_a_shift_of_phase() -> None:
    loss = SpectralLoss(16_000)
    time = torch.arange(8000) / 16_000
    tone, moved, other = (
        torch.sin(2 * torch.pi * f * time + p)[None] for f, p in ((440, 0), (440, 1), (700, 0))
    )
    assert all(v < 1e-6 for v in loss(tone, tone).values())
    assert loss(moved, tone)["convergence"] < 0.1 < loss(other, tone)["convergence"]


def test_discriminators_learn_to_tell_noise_from_tone() -> None:
    torch.manual_seed(0)
    judges = Discriminators(sizes=(256,), channels=4)
    optimizer = torch.optim.AdamW(judges.parameters(), lr=5e-3)
    tone, noise = torch.sin(torch.arange(4000) / 5)[None], torch.randn(1, 4000)
    for _ in range(30):
        loss = discriminator_loss(judges(tone), judges(noise))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.5
    assert generator_losses(judges(tone), judges(noise))[1] > generator_losses(judges(tone), judges(tone))[1]


def test_a_frame_of_latents_is_a_frame_of_audio() -> None:
    config = tiny()
    assert Vocoder(config)(torch.zeros(2, 5, 4)).shape == (2, 5 * config.frame_size)


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a c", 1), ("a b c", "", 3), ("", "a", 1), ("a b", "b a x", 2)],
)
def test_word_errors(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors
