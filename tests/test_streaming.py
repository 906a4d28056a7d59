"""The streaming contract of every causal part: chunks equal the whole, no future, no hidden memory."""

from collections.abc import Callable
from itertools import cycle

import pytest
import torch
from torch import Tensor, nn

from michiai.codec_michiai import AudioEncoder, ConvNeXtBlock, LogMel
from michiai.configuration_michiai import MichiAIConfig
from michiai.streaming_michiai import (
    CausalConvLast,
    CausalConvTranspose1d,
    CausalTransformer,
    StreamState,
    attend,
    name_modules,
)
from michiai.vocoder_michiai import InverseSTFTHead, Vocoder

WINDOW = 12
STEPS = 46  # several windows
TOLERANCE = 1e-9


def small_config() -> MichiAIConfig:
    codec = {"width": 32, "depth": 1, "latent_dim": 8}
    vocoder = {"width": 32, "depth": 2, "upsample_widths": [16]}
    return MichiAIConfig(codec_config=codec, vocoder_config=vocoder)


def paired_config() -> MichiAIConfig:
    """Two stages of upsampling, with paired residual blocks, as in HiFi-GAN V1."""
    vocoder = {"width": 16, "depth": 1, "upsample_rates": [8, 5], "upsample_widths": [8, 8]}
    vocoder |= {"resblock_kernels": [3, 5], "resblock_pairs": True, "istft_hop": 4, "istft_n_fft": 16}
    return MichiAIConfig(vocoder_config=vocoder)


# name: (make, input of T steps, time dimension of input, of output, length of a step in input, in output)
PARTS: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], Tensor], int, int, int, int]] = {
    "conv": (lambda: CausalConvLast(3, 5, 7, dilation=3), lambda b, t: torch.randn(b, t, 3), 1, 1, 1, 1),
    "strided": (lambda: CausalConvLast(3, 5, 5, stride=2), lambda b, t: torch.randn(b, 2 * t, 3), 1, 1, 2, 1),
    "no past": (lambda: CausalConvLast(4, 4, 2, 2, groups=4), lambda b, t: torch.randn(b, 2 * t, 4), 1, 1, 2, 1),
    "transposed": (lambda: CausalConvTranspose1d(3, 5, 9, 4), lambda b, t: torch.randn(b, 3, t), 2, 2, 1, 4),
    "long tail": (lambda: CausalConvTranspose1d(3, 5, 9, 2), lambda b, t: torch.randn(b, 3, t), 2, 2, 1, 2),
    "transformer": (
        lambda: CausalTransformer(16, 2, 2, WINDOW),
        lambda b, t: torch.randn(b, t, 16),
        1,
        1,
        1,
        1,
    ),
    "convnext": (lambda: ConvNeXtBlock(16), lambda b, t: torch.randn(b, t, 16), 1, 1, 1, 1),
    "mel": (lambda: LogMel(16_000, 512, 160, 80), lambda b, t: torch.randn(b, 160 * t) / 9, 1, 2, 160, 1),
    "inverse stft": (lambda: InverseSTFTHead(8, 64, 16), lambda b, t: torch.randn(b, t, 8), 1, 1, 1, 16),
    "encoder": (
        lambda: AudioEncoder(small_config()),
        lambda b, t: torch.randn(b, 1280 * t) / 9,
        1,
        1,
        1280,
        1,
    ),
    "vocoder": (lambda: Vocoder(small_config()), lambda b, t: torch.randn(b, t, 8), 1, 1, 1, 1280),
    "vocoder, paired blocks": (lambda: Vocoder(paired_config()), lambda b, t: torch.randn(b, t, 32), 1, 1, 1, 1280),
}


class Part:
    """One module with its input and the meaning of a step."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
        make, self.make_input, self.dim_in, self.dim_out, self.n_in, self.n_out = PARTS[name]
        self.module = make().double().eval()
        name_modules(self.module)

    def input(self, rows: int = 2, steps: int = STEPS) -> Tensor:
        return self.make_input(rows, steps).double()

    def cut(self, x: Tensor, first: int, last: int) -> Tensor:
        return x.narrow(self.dim_in, first * self.n_in, (last - first) * self.n_in)

    def offline(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.module(x)

    def stream(self, x: Tensor, state: StreamState, sizes: tuple[int, ...] = (1, 3, 2, 17)) -> Tensor:
        steps, at, outputs = x.shape[self.dim_in] // self.n_in, 0, []
        with torch.no_grad():
            for size in cycle(sizes):
                if at >= steps:
                    return torch.cat(outputs, self.dim_out)
                outputs.append(self.module(self.cut(x, at, min(steps, at + size)), state))
                at += size


@pytest.fixture(params=PARTS, scope="module")
def part(request: pytest.FixtureRequest) -> Part:
    return Part(request.param)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("sizes", [(1,), (2, 5, 1), (13, 1, 30)], ids=str)
def test_streaming_is_offline(part: Part, sizes: tuple[int, ...]) -> None:
    x = part.input()
    whole = part.offline(x)
    assert whole.shape[part.dim_out] == STEPS * part.n_out
    close(part.stream(x, StreamState(), sizes), whole)


def test_nothing_from_the_future(part: Part) -> None:
    x, y = part.input(), part.input()
    half = STEPS // 2
    y = torch.cat([part.cut(x, 0, half), part.cut(y, half, STEPS)], part.dim_in)
    same = half * part.n_out
    close(part.offline(x).narrow(part.dim_out, 0, same), part.offline(y).narrow(part.dim_out, 0, same))
    assert not torch.equal(part.offline(x), part.offline(y))


def test_fork_goes_its_own_way(part: Part) -> None:
    state, first = StreamState(), part.input(steps=9)
    part.stream(first, state)
    other = state.fork()
    part.stream(part.input(steps=5), other)
    second = part.input(steps=9)
    whole = part.offline(torch.cat([first, second], part.dim_in))
    close(part.stream(second, state), whole.narrow(part.dim_out, 9 * part.n_out, 9 * part.n_out))


@pytest.mark.parametrize(
    "rows", [torch.tensor([False, True, False]), torch.tensor([1])], ids=["mask", "numbers"]
)
def test_reset_of_one_row(part: Part, rows: Tensor) -> None:
    state, first, second = StreamState(), part.input(3, 15), part.input(3, 15)
    part.stream(first, state)
    state.reset(rows)
    after = part.stream(second, state)
    going_on = part.offline(torch.cat([first, second], part.dim_in))
    going_on = going_on.narrow(part.dim_out, 15 * part.n_out, 15 * part.n_out)
    close(after[[0, 2]], going_on[[0, 2]])
    close(after[1], part.offline(second)[1])


def test_two_sessions_on_one_model(part: Part) -> None:
    a, b = part.input(), part.input()
    states = StreamState(), StreamState()
    outputs: list[list[Tensor]] = [[], []]
    for at in range(STEPS):
        for x, state, output in zip((a, b), states, outputs, strict=True):
            output.append(part.stream(part.cut(x, at, at + 1), state))
    close(torch.cat(outputs[0], part.dim_out), part.offline(a))
    close(torch.cat(outputs[1], part.dim_out), part.offline(b))


def test_batch_is_single_and_rows_come_and_go(part: Part) -> None:
    x = part.input(3)
    close(part.offline(x)[1:2], part.offline(x[1:2]))
    late, early = StreamState(), StreamState()  # two conversations of different age, stepped together
    part.stream(part.cut(x[:1], 0, 20), early)
    part.stream(part.cut(x[1:2], 0, 3), late)
    joined = StreamState.join([early, late])
    chunks = torch.cat([part.cut(x[:1], 20, 30), part.cut(x[1:2], 3, 13)])
    y = part.stream(chunks, joined)
    close(y[0], part.offline(x)[0].narrow(part.dim_out - 1, 20 * part.n_out, 10 * part.n_out))
    alone = joined.select(torch.tensor([1]))
    z = part.stream(part.cut(x[1:2], 13, 20), alone)
    close(z[0], part.offline(x)[1].narrow(part.dim_out - 1, 13 * part.n_out, 7 * part.n_out))


def test_memory_does_not_grow(part: Part) -> None:
    state = StreamState()
    part.stream(part.input(1, 30), state)
    sizes = {path: memory.untyped_storage().nbytes() for path, memory in state.items()}
    part.stream(part.input(1, 30), state)
    assert sizes == {path: memory.untyped_storage().nbytes() for path, memory in state.items()}


def test_transformer_forgets_beyond_its_layers_windows() -> None:
    part = Part("transformer")
    x = part.input(1)
    reach = 2 * (WINDOW - 1)  # of two layers
    y = torch.cat([torch.randn_like(part.cut(x, 0, 10)), part.cut(x, 10, STEPS)], 1)
    close(part.offline(x)[:, 10 + reach :], part.offline(y)[:, 10 + reach :])
    assert not torch.allclose(part.offline(x)[:, 9 + reach], part.offline(y)[:, 9 + reach])


def test_positions_stay_exact_after_days() -> None:
    part = Part("transformer")
    state = StreamState()
    x = part.input(1, 3 * WINDOW)
    part.stream(x, state)
    young, old = state.fork(), state.fork()
    old[part.module.path] += 10_000_000  # nine days of frames
    later = part.input(1, 4 * WINDOW)
    ends = [part.stream(later, session)[:, -1] for session in (young, old)]
    # once the windows hold only new keys, age cannot matter: attention is relative
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the stride 2"):
        Part("strided").module(torch.zeros(1, 5, 3).double())
    with pytest.raises(ValueError, match="multiple of the hop 160"):
        Part("mel").module(torch.zeros(1, 161).double())
    with pytest.raises(ValueError, match="upsample_rates"):
        Vocoder(MichiAIConfig(vocoder_config={"upsample_rates": [8], "upsample_widths": [8]}))


def test_mel_knows_loudness_and_pitch() -> None:
    mel = LogMel(16_000, 512, 160, 80)
    name_modules(mel)
    time = torch.arange(16_000) / 16_000
    low, high = (mel(torch.sin(2 * torch.pi * hertz * time)[None])[0, :, 50] for hertz in (300, 3000))
    assert low.argmax() < 15 and high.argmax() > 45
    assert mel(torch.zeros(1, 1600)).unique().numel() == 1


@pytest.mark.parametrize("causal", [True, False])
def test_attention_of_training_is_that_of_inference(causal: bool) -> None:
    query, key, value = torch.randn(3, 2, 4, 12, 8).unbind(0)
    mask = None if causal else torch.rand(2, 1, 12, 12) < 0.5
    if mask is not None:
        mask = mask | torch.eye(12, dtype=torch.bool)
    torch.testing.assert_close(attend(query.clone().requires_grad_(), key, value, mask), attend(query, key, value, mask))
