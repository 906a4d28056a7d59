"""The model folder as users load it: from a clone and from the Hub's cache, in a fresh interpreter, without a network."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from michiai.modeling_michiai import MichiAIModel

from helpers import ROOT, speech

LOADER = """
import json, pickle, sys, torch
torch.set_num_threads(1)
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer
name, out = sys.argv[1], sys.argv[2]
config = AutoConfig.from_pretrained(name, trust_remote_code=True)
model, info = AutoModel.from_pretrained(name, trust_remote_code=True, output_loading_info=True)
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=True)
assert not any(info.values()), info
assert {p.dtype for p in model.parameters()} == {torch.float32}, "computed with in float32"
assert type(config).__name__ == type(model.config).__name__ == "MichiAIConfig" and type(processor).__name__ == "MichiAIProcessor"
assert processor.tokenizer.get_vocab() == tokenizer.get_vocab() == model.tokenizer.get_vocab()
ids = model.generate(**processor(text="Hello there", return_tensors="pt"), max_new_tokens=4, do_sample=False)

def answer(model):
    torch.manual_seed(0)
    with model.session(context="the train leaves at nine", seed=3) as session:
        return torch.cat([frame.audio for frame in session.push(torch.randn(16_000).mul(0.1))])

sound = answer(model)
model.save_pretrained(out)
again, info = AutoModel.from_pretrained(out, trust_remote_code=True, output_loading_info=True)
assert type(AutoModel.from_pretrained(name, trust_remote_code=True)) is type(pickle.loads(pickle.dumps(model))) is type(model)
saved = AutoProcessor.from_pretrained(out, trust_remote_code=True)
assert type(saved).__name__ == "MichiAIProcessor" and saved.sampling_rate == processor.sampling_rate, "saved with the model"
assert saved.spoken_text == processor.spoken_text and saved.tokenizer.get_vocab() == tokenizer.get_vocab()
assert not any(info.values()), info
mine, theirs = model.state_dict(), again.state_dict()
assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine), "the same bits"
# loaded weights lie at other addresses, which changes how matrix products are summed
assert (answer(again) - sound).abs().max() < 1e-5 and sound.isfinite().all() and sound.std() > 0
assert model.config.to_dict().keys() == again.config.to_dict().keys()
torch.save({"sound": sound, "ids": ids, "parameters": sum(p.numel() for p in model.parameters())}, out + "/result.pt")
"""


def load_elsewhere(name: str, out: Path, **environment: str) -> dict:
    """Run LOADER on `name` in a fresh interpreter that does not know the package `michiai`."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(out / "home"),
        "TRANSFORMERS_VERBOSITY": "error",
        **environment,
    }
    out.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, name, str(out / "saved")],
        env=env,
        cwd=out,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out / "saved" / "result.pt")


def in_hub_cache(folder: Path, home: Path, name: str = "somebody/michi-ai") -> str:
    """Lay `folder` out as the Hub's cache does; returns its name."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    base = home / "hub" / ("models--" + name.replace("/", "--"))
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(commit)
    shutil.copytree(folder, base / "snapshots" / commit)
    return name


def test_clone_and_hub_cache_give_the_same(folder: Path, tmp_path: Path, model) -> None:
    name = in_hub_cache(folder, tmp_path / "hub" / "home")
    with ThreadPoolExecutor(2) as pool:  # interpreters, which take most of their time to import
        clone, hub = pool.map(load_elsewhere, (str(folder), name), (tmp_path / "clone", tmp_path / "hub"))
    assert torch.allclose(clone["sound"], hub["sound"], atol=1e-5) and torch.equal(clone["ids"], hub["ids"])
    assert clone["parameters"] == sum(p.numel() for p in model.parameters())


def test_the_clone_itself_loads(tmp_path: Path) -> None:
    copy = tmp_path / "michiai"
    copy.mkdir()
    for pattern in ("*.py", "*.json", "*.safetensors", "*.txt"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, copy)
    assert (copy / "model.safetensors").stat().st_size <= 32 * 2**20
    result = load_elsewhere(str(copy), tmp_path / "out")
    assert result["parameters"] < 17e6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_converse(folder: Path, dtype: torch.dtype) -> None:
    loaded, moved = MichiAIModel.from_pretrained(folder, dtype=dtype), MichiAIModel.from_pretrained(folder).to(dtype)
    for model in (loaded, moved):
        assert model.dtype == dtype and model.listen.mel.window.dtype == model.vocoder.head.window.dtype == torch.float32
        assert model.speak("nine").isfinite().all() and len(model.session().push(speech(0.5))) == 6
        assert torch.equal(model.listen.mel.filters, MichiAIModel.from_pretrained(folder).listen.mel.filters)


def test_float64_computes_what_float32_does(folder: Path) -> None:
    exact, model = MichiAIModel.from_pretrained(folder).double(), MichiAIModel.from_pretrained(folder)
    sounds = [torch.cat([frame.audio for frame in m.session(context="nine").push(speech(0.5))]) for m in (exact, model)]
    assert torch.allclose(*sounds, atol=1e-4)


def test_what_is_saved_converses(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    model = MichiAIModel.from_pretrained(".")
    monkeypatch.chdir(tmp_path)  # the tokenizer is read only now
    model.save_pretrained(tmp_path / "saved")
    sounds = [m.session(context="nine").push(speech(0.5)) for m in (model, MichiAIModel.from_pretrained(tmp_path / "saved"))]
    assert all(torch.allclose(a.audio, b.audio, atol=1e-5) for a, b in zip(*sounds, strict=True))


def test_weights_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from assemble import TAKEN, merge

    save_file({"codec.a": torch.zeros(1), "mel_head.b": torch.zeros(1)}, tmp_path / "codec")
    assert list(merge({"codec": tmp_path / "codec"})) == ["codec.a"]
    save_file({"listen.a": torch.zeros(1)}, tmp_path / "wrong")
    with pytest.raises(ValueError, match="'listen.a'; expected names that start with"):
        merge({"codec": tmp_path / "wrong"})
    assert set(TAKEN) == {"codec", "listen", "duplex", "vocoder"}
