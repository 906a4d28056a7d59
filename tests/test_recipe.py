"""The stages for another preset than nano: 24 kHz, an LLM of somebody else, shards written at 16 kHz."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from test_smoke import MISSING
from transformers import AutoTokenizer

from michiai.training.audio_data import ListenBatches, Shards
from michiai.training.common import read_config
from michiai.training.prepare import own_stream
from michiai.training.shards import Shard

from assemble import write_folder
from helpers import ROOT, TINY, tiny_config
from warm_start import warm_start

SECONDS, RATE = 4, 16_000  # of a dialogue; of the shards
HEARD, SAID = (0.81, 1.2), (2.01, 2.4)  # frames 10 to 14 and 25 to 29: what user and model say, and nothing else sounds
OPTIONS = ("--steps", 1, "--batch", 2, "--warmup", 1, "--device", "cpu", "--mixed-precision", "no")


def tone(spans: list[tuple[float, float]], seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    inside = sum((time >= start) & (time < end) for start, end in spans)
    return (9000 * np.sin(2 * np.pi * 440 * time) * inside).astype(np.int16)


TURNS = [{"who": "user", "start": HEARD[0], "end": HEARD[1], "text": "train", "timing": "after"},
         {"who": "model", "start": SAID[0], "end": SAID[1], "text": "nine", "timing": "after"}]
INFO = {"behaviour": "plain", "instructions": "", "context": "", "injections": [], "user_voice": "flite:a", "model_voice": "flite:b",
        "user_words": [["train", *HEARD]], "model_words": [["nine", *SAID]], "turns": TURNS, "questions": []}


def write_dialogues(folder: Path, n: int = 3) -> None:
    """A shard as `python -m michiai.data` writes it."""
    folder.mkdir(parents=True)
    audio = np.stack([tone([HEARD], SECONDS), tone([SAID], SECONDS)])
    reference = tone([(0, 3.2)], 3.2)
    save_file({"audio": np.tile(audio, n), "offsets": np.arange(n + 1) * audio.shape[1], "reference": np.tile(reference, n),
               "reference_offsets": np.arange(n + 1) * len(reference)}, folder / "00000.safetensors")
    (folder / "00000.jsonl").write_text("".join(json.dumps({"id": i} | INFO) + "\n" for i in range(n)))
    (folder / "manifest.json").write_text(json.dumps({"sampling_rate": RATE}))


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    """The smallest preset at 24 kHz, without an LLM."""
    parts = {name: values for name, values in TINY.items() if name != "text_config"}
    parts["vocoder_config"] = TINY["vocoder_config"] | {"istft_hop": 24, "istft_n_fft": 96}
    path = tmp_path_factory.mktemp("preset") / "config.json"
    path.write_text(json.dumps(parts | {"model_type": "michiai", "sampling_rate": 24_000, "spoken_text": False}))
    return path


@pytest.fixture(scope="module")
def warm(preset: Path, llm: Path, tmp_path_factory) -> Path:
    """A warm-started model folder, and its tokenizer by itself in `tokenizer`."""
    out = tmp_path_factory.mktemp("warm")
    model, tokenizer = warm_start(llm, preset)
    write_folder(model, tokenizer, out, torch.float32)
    tokenizer.save_pretrained(out / "tokenizer")
    return out


def test_every_stage_takes_a_preset_and_word_and_sound_stand_in_their_frames(warm: Path, tmp_path: Path, monkeypatch) -> None:
    data, tokens, weights = tmp_path / "data", warm / "tokenizer", {"warm": warm / "model.safetensors"}
    write_dialogues(data)

    def stage(module: str, out: str, *options: object) -> None:
        monkeypatch.setattr(sys, "argv", [module, "--config", str(warm), "--out", str(tmp_path / out), *map(str, options)])
        importlib.import_module(f"michiai.{module}").main()
        weights[out] = tmp_path / out / "model.safetensors"

    words = ("--tokenizer", tokens, "--table", weights["warm"])
    stage("training.text", "text", "--tokenizer", tokens, "--init", weights["warm"], *OPTIONS)
    stage("training.codec", "codec", "--data", data, "--width", 24, *OPTIONS)
    stage("training.encoder", "encoder", "--data", data, "--codec", weights["codec"], *OPTIONS)
    stage("vocoder.train", "vocoder", "--data", data, "--codec", weights["codec"], *OPTIONS)
    stage("training.listen", "listen", "--data", data, *words, "--clip-frames", 40, *OPTIONS)
    stage("training.prepare", "frames", "--data", data, "--codec", weights["codec"], *words)
    stage("training.prepare", "heard", "--data", data, "--codec", weights["codec"], "--listen", weights["listen"], *words)
    stage("training.duplex", "duplex", "--init", weights["warm"], "--frames", tmp_path / "heard", "--virtual", 0, *words[:2], *OPTIONS)

    tokenizer, config = AutoTokenizer.from_pretrained(tokens), read_config(warm)
    frames = load_file(tmp_path / "frames" / "00000.safetensors")
    assert frames["offsets"].tolist() == [0, 50, 100, 150] and frames["voice_offsets"].tolist() == [0, 40, 80, 120]
    latents, own, user = frames["latents"][50:100].float(), frames["own_text"][50:100], frames["user_text"][50:100]
    sounding = (latents[20:] - latents[24]).abs().amax(1) > 0.05
    assert not sounding[:5].any() and sounding[5], "the model speaks from frame 25 on"
    train, nine = (tokenizer(f" {word}")["input_ids"] for word in ("train", "nine"))
    assert own[22] == config.special_tokens["<turn>"] and own[23 : 23 + len(nine)].tolist() == nine, "its words lead by two frames"
    assert user.nonzero()[0, 0] == 17 and user[17 : 17 + len(train)].tolist() == train, "a word that ends in frame 14 is known three later"
    assert torch.iinfo(own.dtype).max > 49_152 < torch.iinfo(user.dtype).max, "SmolLM has so many pieces"

    shards = Shards(data, sampling_rate=config.sampling_rate)
    assert shards.hours() == pytest.approx(3 * SECONDS / 3600)
    batches = ListenBatches(shards, tokenizer, 50, 3, config.frame_size, config.sampling_rate, shares=(1, 0, 0), shuffled=0)
    clip = next(clip for clip in (batches.clip(np.random.default_rng(seed)) for seed in range(99)) if clip["rate"] == 1)
    loud = clip["audio"][: 50 * 1920].reshape(50, 1920).std(1) > 1000
    assert np.flatnonzero(loud).tolist() == [10, 11, 12, 13, 14] and np.flatnonzero(clip["tokens"])[0] == 17


def test_words_stand_in_their_frames_at_another_frame_rate(tokenizer, tmp_path: Path) -> None:
    write_dialogues(tmp_path / "data")
    config = tiny_config(len(tokenizer), frame_rate=25)
    own = own_stream(INFO, tokenizer, 100, config)
    assert own[47] == config.special_tokens["<turn>"] and own[48] in tokenizer(" nine")["input_ids"]
    batches = ListenBatches(Shards(tmp_path / "data"), tokenizer, 100, 3, config.frame_size, config.sampling_rate)
    tokens = batches.targets(INFO, INFO["user_words"], 0, 0.0, 1.0)["tokens"]
    assert np.flatnonzero(tokens)[0] == 29 + 3


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000])
def test_a_stretch_of_a_shard_is_part_of_the_whole_at_any_rate(tmp_path: Path, rate: int) -> None:
    write_dialogues(tmp_path / "data")
    shard = Shard(tmp_path / "data" / "00000.safetensors", rate)
    whole = shard.read(1)
    assert whole.shape == (2, SECONDS * rate) and shard.offsets == [i * SECONDS * rate for i in range(4)]
    assert len(shard.read(2, name="reference")) == 3.2 * rate
    end = whole.shape[1]
    for start, stop in ((0, 9000), (1, 2), (17_003, 17_900), (end - 40, end + 40), (end, end + 9)):
        assert np.array_equal(shard.read(1, start, stop), whole[:, start:stop])
        assert np.array_equal(shard.read(1, start, stop, 1), whole[1, start:stop])
    time = np.arange(end) / rate
    inside = (time > HEARD[0] + 0.01) & (time < HEARD[1] - 0.01)
    assert np.abs(whole[0] - 9000 * np.sin(2 * np.pi * 440 * time))[inside].max() < 20


def test_without_a_manifest_shards_are_at_16_khz_and_as_written(tmp_path: Path) -> None:
    write_dialogues(tmp_path / "data")
    (tmp_path / "data" / "manifest.json").unlink()
    path = tmp_path / "data" / "00000.safetensors"
    written = load_file(path)["audio"][:, : SECONDS * RATE].numpy()
    assert np.array_equal(Shard(path, RATE).read(1, 5, 70_000), written[:, 5:])
    assert Shard(path, 24_000).offsets[1] == SECONDS * 24_000


def test_a_config_for_another_tokenizer_is_named(warm: Path, tokenizer, preset: Path) -> None:
    own = AutoTokenizer.from_pretrained(warm / "tokenizer")
    assert read_config(warm, own).text_config.vocab_size == len(own)
    assert read_config(None, tokenizer).text_config.vocab_size == len(tokenizer)
    for folder, other in ((warm, tokenizer), (preset.parent, own)):
        with pytest.raises(ValueError, match="is for another tokenizer.*scripts/warm_start.py"):
            read_config(folder, other)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the synthesis needs {' '.join(MISSING)} (apt-get install)")
def test_the_recipe_of_the_530m_runs_at_toy_size(preset: Path, llm: Path, tmp_path: Path) -> None:
    for name in ("train", "read"):
        write_dialogues(tmp_path / "data" / name)
    env = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PRESET": str(preset), "HOURS": "0.002", "WORKERS": "1",
                        "OPTIONS": "--steps 2 --batch 2 --warmup 1 --workers 0 --device cpu"}
    done = subprocess.run(["bash", str(ROOT / "runs" / "530m.sh"), str(llm), str(tmp_path)], env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-2500:]
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["sampling_rate"] == 24_000
