"""The configuration: strict, and of the sizes that are promised."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from michiai.configuration_michiai import MichiAIConfig, exact_div, nano_text_config
from michiai.modeling_michiai import MichiAIModel

from count import count, shapes
from helpers import ROOT, TINY, tiny_config

PRESET = ROOT / "configs" / "530m" / "config.json"

SMOLLM_360M = {"hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
               "num_key_value_heads": 5, "vocab_size": 49152, "max_position_embeddings": 2048, "tie_word_embeddings": True,
               "hidden_act": "silu", "rms_norm_eps": 1e-5}  # fmt: skip


def test_the_release_model_has_530_million_parameters() -> None:
    config = MichiAIConfig.from_dict(json.loads(PRESET.read_text()))
    for name, value in SMOLLM_360M.items():
        assert getattr(config.text_config, name) == value, name
    assert (
        config.text_config.rope_parameters["rope_theta"] == 10_000
        and config.text_config.model_type == "llama"
    )
    assert (config.sampling_rate, config.frame_size) == (24_000, 1920)
    assert (config.listen_config.layers, config.listen_config.width) == (12, 768)
    counts = count(config)
    assert abs(counts["Total"] - 530e6) <= 5.3e6
    assert counts["Backbone: text LLM"] == 361_821_120  # as published
    about = {"Listen head": 90e6, "Speak head": 40e6, "Vocoder": 26e6, "Codec encoder": 12e6}
    assert all(abs(counts[part] - wanted) < 0.1 * wanted for part, wanted in about.items()), counts
    assert shapes(config).keys() == counts.keys()


def test_nano_is_small() -> None:
    assert (
        count(MichiAIConfig(text_config=nano_text_config()))["Total"] * 2 < 32 * 2**20 - 250_000
    )  # in float16, with buffers and header


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    config = tiny_config()
    config.save_pretrained(tmp_path)
    again = MichiAIConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    written = json.loads((tmp_path / "config.json").read_text())
    assert {"codec_config", "listen_config", "speak_config", "vocoder_config", "window"} <= written.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_rat": 16_000}, "unknown key 'sampling_rat'.*misspelt"),
        ({"listen_config": {"widht": 3}}, "listen_config has an unknown key 'widht'.*misspelt"),
        ({"speak_config": {"width": "320"}}, "speak_config.width is '320'; expected int"),
        ({"codec_config": {"depth": 2.5}}, "codec_config.depth is 2.5; expected int"),
        ({"vocoder_config": {"resblock_pairs": 1}}, "resblock_pairs is 1; expected bool"),
        ({"vocoder_config": {"upsample_rates": 10}}, "upsample_rates is 10; expected list"),
        (
            {"checkpoint_version": 4},
            "checkpoint_version is 4, this code reads version 3; load the checkpoint with the code",
        ),
        ({"sampling_rate": 16_001}, "not divisible"),
        ({"sampling_rate": "16000"}, "sampling_rate is '16000'; expected a whole number"),
        ({"sampling_rate": 0}, "sampling_rate is 0; expected"),
        ({"window": 0}, "window is 0; expected"),
        ({"frame_rate": 0}, "frame_rate is 0; expected"),
        ({"special_tokens": {"<pad>": 0}}, "special_tokens lacks"),
    ],
)
def test_bad_values_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec_config": TINY["codec_config"] | {"mel_rate": 110}}, "not divisible"),
        ({"codec_config": TINY["codec_config"] | {"mel_rate": 125}}, "power of two"),
        ({"listen_config": TINY["listen_config"] | {"mel_rate": 125}}, "power of two"),
        ({"vocoder_config": TINY["vocoder_config"] | {"upsample_rates": [7]}}, "not divisible"),
        ({"vocoder_config": TINY["vocoder_config"] | {"upsample_rates": [5]}}, "leave 32 samples"),
    ],
)
def test_frames_that_do_not_divide_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MichiAIModel(tiny_config(**changes))


def test_exact_div() -> None:
    assert exact_div(1280, 160, "hop") == 8
    with pytest.raises(ValueError, match="hop: 1280 is not divisible by 0"):
        exact_div(1280, 0, "hop")


def test_a_checkpoint_that_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    values = json.loads((folder / "config.json").read_text())

    def load(**changes: object) -> None:
        (copy / "config.json").write_text(json.dumps(values | changes))
        MichiAIModel.from_pretrained(copy)

    load()
    with pytest.raises(ValueError, match="does not fit its config.json.*speak_head"):
        load(speak_config=values["speak_config"] | {"width": 24})
    with pytest.raises(ValueError, match="does not fit its config.json.*missing"):
        load(speak_config=values["speak_config"] | {"depth": 3})
    with pytest.raises(ValueError, match="does not fit its config.json.*unexpected"):
        load(speak_config=values["speak_config"] | {"depth": 1})
    with pytest.raises(ValueError, match="checkpoint_version is 0"):
        load(checkpoint_version=0)
    with pytest.raises(ValueError, match="unknown key 'windw'"):
        load(windw=3)


def test_half_on_disk_is_float32_in_use(folder: Path) -> None:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as f:
        assert f.metadata()["format"] == "pt"
        assert f.get_tensor("backbone.listen_proj.weight").dtype == torch.float16
        assert f.get_tensor("codec.mel.filters").dtype == torch.float32
    assert MichiAIModel.from_pretrained(folder).dtype == torch.float32
