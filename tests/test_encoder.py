"""The small encoder learns the large one's latents."""

from pathlib import Path

import pytest
import torch

from michiai.codec_michiai import AudioEncoder
from michiai.training.common import save_tensors
from michiai.training.encoder import EncoderStage, load_encoder

from helpers import TINY, tiny_config

WIDE = TINY["codec_config"] | {"width": 24}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A codec file whose encoder is wider than the configuration's."""
    torch.manual_seed(0)
    codec = AudioEncoder(tiny_config(codec_config=WIDE))
    codec.latent_mean.normal_()
    codec.latent_std.fill_(0.5)
    save_tensors(tmp_path / "codec.safetensors", {f"codec.{name}": t for name, t in codec.state_dict().items()})
    return tmp_path / "codec.safetensors"


def noise(n: int = 3) -> dict[str, torch.Tensor]:
    return {"audio": (torch.randn(n, 6 * 1280) * 2000).to(torch.int16)}


def test_an_encoder_is_as_wide_as_its_file(teacher: Path) -> None:
    config = tiny_config()
    encoder = load_encoder(teacher, config)
    assert encoder.norm.weight.shape == (24,) and config.codec_config.width == 16
    assert not any(p.requires_grad for p in encoder.parameters())


def test_the_same_encoder_has_no_loss_and_a_small_one_learns(teacher: Path) -> None:
    same = EncoderStage(tiny_config(codec_config=WIDE), load_encoder(teacher, tiny_config()))
    same.codec.load_state_dict(same.teacher.state_dict())
    assert same(noise(), 0)["loss"] < 1e-9
    torch.manual_seed(0)
    stage = EncoderStage(tiny_config(), load_encoder(teacher, tiny_config()))
    assert torch.equal(stage.codec.latent_mean, stage.teacher.latent_mean) and (stage.codec.latent_std == 0.5).all()
    optimizer = torch.optim.Adam(stage.codec.parameters(), 3e-3)
    losses = []
    for step in range(40):
        loss = stage(noise(), step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    assert all(p.grad is None for p in stage.teacher.parameters())
