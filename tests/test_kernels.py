"""The compiled kernels: each computes what PyTorch's operations compute, for every kind of processor that they know."""

import copy
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from michiai import kernels_build_michiai as build
from michiai import kernels_michiai as kernels
from michiai.modeling_michiai import MichiAIModel
from michiai.packed_michiai import quantise_rows
from michiai.streaming_michiai import StreamState

from helpers import error, tiny_config

pytestmark = pytest.mark.skipif(not build.has_kernels(), reason="needs g++ or clang++")

PROCESSORS = {
    "this": (),
    "without tiles": ("-mno-amx-bf16", "-mno-amx-int8"),
    "without bfloat16": ("-mno-amx-bf16", "-mno-amx-int8", "-mno-avx512bf16"),
    "without AVX-512": ("-mno-amx-bf16", "-mno-amx-int8", "-mno-avx512f"),
    "without AVX2": ("-mno-amx-bf16", "-mno-amx-int8", "-mno-avx2"),
    "every product": ("-DEVERY_PRODUCT",),  # of a convolution, as where there is bfloat16
}
MACROS = {"__AVX512F__", "__AVX512VNNI__", "__AVX512BF16__", "__AMX_BF16__", "__AMX_INT8__", "__AVX2__", "EVERY_PRODUCT"}


def code_for(processor: str) -> frozenset[str]:
    """What the source of the kernels asks of the compiler's macros there: alike for processors that get the same code."""
    compiler = next(filter(shutil.which, [os.environ.get("CXX", ""), "g++", "clang++", "c++"]))
    command = [compiler, *build.FLAGS, *PROCESSORS[processor], "-dM", "-E", "-x", "c++", os.devnull]
    made = subprocess.run(command, capture_output=True, text=True)
    names = MACROS & {word for line in made.stdout.splitlines() for word in line.split()[1:2]}
    return frozenset(names - {"EVERY_PRODUCT"} if "__AVX512BF16__" in names else names)


@pytest.fixture(scope="module", params=PROCESSORS)
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The kernels as compiled for a processor that lacks something."""
    before = list(PROCESSORS)[: list(PROCESSORS).index(request.param)]
    if code_for(request.param) in map(code_for, before):
        pytest.skip("this processor lacks the same: the code is that of another one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(build, "FLAGS", (*build.FLAGS, *PROCESSORS[request.param]))
        build.library.cache_clear()
        if not build.has_kernels():
            pytest.skip("this compiler does not know the flag")
        yield request.param
    build.library.cache_clear()


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Also more than share the work evenly."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def fast() -> MichiAIModel:
    """A small model all of whose layers are the kernels'; widths that are no whole tiles; residual blocks as HiFi-GAN's."""
    text = tiny_config().text_config.to_dict() | {
        "hidden_size": 128, "intermediate_size": 200, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    }  # fmt: skip
    torch.manual_seed(0)
    listen = {"mel_bins": 36, "conv_width": 136, "width": 144, "layers": 2, "heads": 2, "window": 9}
    speak = asdict(tiny_config().speak_config) | {"width": 136, "depth": 2}
    vocoder = asdict(tiny_config().vocoder_config) | {"width": 24, "upsample_widths": [40], "resblock_pairs": True}
    vocoder |= {"resblock_kernels": [3, 7, 11], "resblock_dilations": [1, 3, 5]}
    model = MichiAIModel(tiny_config(400, text_config=text, listen_config=listen, speak_config=speak, vocoder_config=vocoder)).eval()
    model.default_voice.normal_()
    return model.optimize("cpu-int8")


def run(model: MichiAIModel, rows: int = 2, guidance: float = 0.5, frames: int = 40) -> Tensor:
    """[rows, frames, samples] of conversations after a prompt, past the window of 30 frames."""
    state, generator = StreamState(), torch.Generator().manual_seed(0)
    model.prompt(state, torch.arange(10, 30)[None].expand(rows, -1), model.default_voice[None].expand(rows, -1, -1), guidance)
    sounds = []
    for _ in range(frames):
        audio = 0.1 * torch.randn(rows, model.config.frame_size, generator=generator)
        sounds.append(model.step(audio, state, torch.randn(rows, model.config.latent_dim, generator=generator)).audio)
    return torch.stack(sounds, 1)


@pytest.mark.parametrize("n", [64, 100, 960])
@pytest.mark.parametrize("rows", [1, 16, 50, 2048])
@pytest.mark.parametrize("positions", [1, 3, 6, 16, 41])
def test_products(processor: str, threads: int, positions: int, rows: int, n: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(positions, n) * torch.logspace(-3, 3, positions)[:, None]
    weight, scale = quantise_rows(torch.randn(rows, n))
    bias = torch.randn(rows)
    y = kernels.multiply_int8(x, weight, scale, weight.sum(1, dtype=torch.int32), bias)
    level = x.abs().amax(-1, keepdim=True) / 127
    wanted = ((x / level).round().double() @ weight.double().T) * (level * scale) + bias
    torch.testing.assert_close(y, wanted.float(), rtol=1e-4, atol=1e-3 * float(level.max()))
    for due in (torch.arange(positions) == 0, torch.zeros(positions, dtype=torch.bool)):
        some = kernels.multiply_int8(x, weight, scale, weight.sum(1, dtype=torch.int32), bias, due)
        assert torch.equal(some, y if due.any() else torch.zeros_like(y))


@pytest.fixture(scope="module")
def by_operations(fast: MichiAIModel) -> Tensor:
    """What `run` gives by PyTorch's operations on the same weights."""
    plain = copy.deepcopy(fast)
    plain.runner = None
    for part in (plain.listen, plain.listen.transformer, plain.backbone, plain.speak_head, plain.vocoder):
        assert part.kernel is not None
        part.kernel = None
    with torch.inference_mode():
        return run(plain)


@torch.inference_mode()
def test_conversations(processor: str, threads: int, fast: MichiAIModel, by_operations: Tensor) -> None:
    """All kernels together, two guided conversations."""
    assert error(run(fast), by_operations) < 0.05


@torch.inference_mode()
def test_layers(processor: str, threads: int, fast: MichiAIModel) -> None:
    """The LLM, the listen head and the speak head alone, one kernel at a time: nothing but rounding differs."""
    plain = copy.deepcopy(fast)
    plain.backbone.kernel = plain.listen.kernel = plain.listen.transformer.kernel = plain.speak_head.kernel = None
    states = StreamState(), StreamState()
    voice = fast.default_voice[None].expand(2, -1, -1)
    for model, state in zip((fast, plain), states, strict=True):
        model.prompt(state, torch.arange(10, 300)[None].expand(2, -1), voice)
    for count in (1, 3, 5, 1):
        x, kind = torch.randn(2, count, 128), torch.randint(1, 4, (2, count))
        mine, wanted = (model.backbone(x, kind, state) for model, state in zip((fast, plain), states, strict=True))
        assert error(mine, wanted) < 0.02
    states = StreamState(), StreamState()
    for _ in range(20):  # past the window of 9
        x = torch.randn(2, 1, 144)
        mine, wanted = (model.listen.transformer(x, state) for model, state in zip((fast, plain), states, strict=True))
        assert error(mine, wanted) < 0.02
    states, mel = (StreamState(), StreamState()), torch.randn(2, 36, 80)
    for piece in mel.split([8, 24, 48], 2):
        mine, wanted = (model.listen.encode(piece, state) for model, state in zip((fast, plain), states, strict=True))
        assert error(mine, wanted) < 0.02
    assert error(fast.listen.encode(mel)[:, -6:], mine) < 0.005
    hidden, noise = torch.randn(2, 3, 128), torch.randn(2, 3, fast.config.latent_dim)
    for steps in (1, 2):
        assert error(fast.speak_head(hidden, noise, steps), plain.speak_head(hidden, noise, steps)) < 0.02


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [12]])
def test_the_vocoder(processor: str, threads: int, fast: MichiAIModel, sizes: list[int]) -> None:
    plain = copy.deepcopy(fast.vocoder)
    plain.kernel, latents, state = None, torch.randn(2, 12, fast.config.latent_dim), StreamState()
    y = torch.cat([fast.vocoder(piece, state) for piece in latents.split(sizes, 1)], 1)
    assert error(y, plain.float()(latents)) < 0.02
    state.reset(torch.tensor([True, False]))
    again = fast.vocoder(latents, state)
    assert torch.allclose(again[0], y[0], atol=1e-3) and not torch.allclose(again[1], y[1], atol=1e-3)


def test_a_memory_that_lies_otherwise_is_refused(fast: MichiAIModel) -> None:
    memory = torch.zeros(1, 3, 2, 2, 64, 8, dtype=torch.bfloat16).transpose(4, 5)
    x, seen, turn = torch.zeros(1, 1, 128), torch.ones(1, 1, 8, dtype=torch.bool), torch.ones(1, 1, 2, 64)
    with pytest.raises(ValueError, match="heads contiguous"):
        fast.backbone.kernel(x, torch.zeros(1, 1, dtype=torch.long), seen, turn, turn, memory[:, :, :, :, :0], memory)


# ---------------------------------------------------------------- compiling


@pytest.fixture
def anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of compiled kernels."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    monkeypatch.setattr(build, "SOURCE", 'extern "C" {' + "".join(f"void {name}() {{}}" for name in build.FUNCTIONS) + "}")
    yield tmp_path / "michiai"
    monkeypatch.undo()
    build.library.cache_clear()


def test_compiled_once(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.has_kernels()
    (made,) = anew.iterdir()
    build.library.cache_clear()
    monkeypatch.setattr(build.subprocess, "run", None)
    assert build.has_kernels() and list(anew.iterdir()) == [made]


def test_where_nothing_can_be_kept(anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    anew.parent.joinpath("a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(anew.parent / "a file"))
    assert build.has_kernels() and "cannot be kept" in caplog.text and "XDG_CACHE_HOME" in caplog.text


def test_without_a_compiler_operations_run(anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert not build.has_kernels()
    assert "install g++" in caplog.text and "PyTorch's own operations" in caplog.text


def test_a_compiler_that_fails_is_named(anew: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CXX", "false")
    assert build.has_kernels(), "the next one is tried"
    build.library.cache_clear()
    which = shutil.which
    monkeypatch.setattr(build.shutil, "which", lambda name: which("false") if name == "false" else None)
    assert not build.has_kernels() and "false could not compile" in caplog.text
