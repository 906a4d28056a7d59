"""The fast forms: each computes what the plain one computes, and memory keeps its contract."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from michiai import kernels_build_michiai, modeling_michiai, optimize_michiai, runner_michiai
from michiai.evaluation.load import load_model
from michiai.graph_michiai import GraphRunner, use_graph
from michiai.lanes_michiai import ENTERING, words_due
from michiai.modeling_michiai import MichiAIModel
from michiai.packed_michiai import Int8Linear, MatrixConv, MatrixConvTranspose
from michiai.streaming_michiai import CausalConvLast, CausalConvTranspose1d, StreamState, name_modules
from michiai.voice_michiai import Voice

from helpers import error, tiny_config

FRAMES = 40  # past the tiny window of 30


def run(
    model: MichiAIModel, state: StreamState | None = None, rows: int = 1, seed: int = 0, frames: int = FRAMES
) -> Tensor:
    """[rows, frames, samples] of a conversation of noise, after a prompt where none was given."""
    generator = torch.Generator().manual_seed(seed)
    if state is None:
        state = StreamState()
        model.prompt(
            state, torch.arange(10, 30)[None].expand(rows, -1), model.default_voice[None].expand(rows, -1, -1)
        )
    sounds = []
    for _ in range(frames):
        audio = 0.1 * torch.randn(rows, model.config.frame_size, generator=generator)
        noise = torch.randn(rows, model.config.latent_dim, generator=generator).to(model.dtype)
        sounds.append(model.step(audio, state, noise).audio.float())
    return torch.stack(sounds, 1)


def count_records(model: MichiAIModel) -> dict[str, int]:
    """Records of each stage of a frame."""
    counts: dict[str, int] = {}
    for (stage, *_), records in model.runner.records.items():
        counts[stage] = counts.get(stage, 0) + len(records)
    return counts


@pytest.fixture(scope="module", autouse=True, params=["operations", "kernels"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """With the compiled kernels, and as where there is no compiler; there, tiny models have few layers, which would be recorded each."""
    if request.param == "kernels" and not kernels_build_michiai.has_kernels():
        pytest.skip("needs g++ or clang++")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner_michiai, "FEW", 0)
        if request.param == "operations":
            patch.setattr(kernels_build_michiai, "library", lambda: None)
        yield request.param


@pytest.fixture(scope="module")
def plain() -> MichiAIModel:
    """A tiny model whose matrices are large enough to become int8."""
    text = tiny_config().text_config.to_dict() | {
        "hidden_size": 128,
        "intermediate_size": 192,
        "head_dim": None,
    }
    torch.manual_seed(0)
    model = MichiAIModel(
        tiny_config(
            400,
            text_config=text,
            listen_config={
                "mel_bins": 20,
                "conv_width": 16,
                "width": 128,
                "layers": 2,
                "heads": 2,
                "window": 9,
            },
        )
    ).eval()
    model.default_voice.normal_()
    return model


@pytest.fixture(scope="module")
def fast(form: str, plain: MichiAIModel) -> MichiAIModel:
    return copy.deepcopy(plain).optimize("cpu-int8")


# ---------------------------------------------------------------- layers


def test_int8_rows_are_near_and_do_not_depend_on_their_neighbours() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(256, 192), torch.randn(5, 256) * torch.tensor([[1.0], [10.0], [0.1], [3.0], [0.0]])
    from michiai.optimize_michiai import _int8

    made = _int8(linear)
    made.pack()
    assert isinstance(made, Int8Linear) and error(made(x), linear(x)) < 0.02
    assert torch.allclose(made(x)[:2], made(x[:2]), atol=1e-6)
    assert error(made(x[:1]), linear(x[:1])) < 0.02 and made(x[:1]).shape == (1, 192)
    again = Int8Linear(256, 192, True)
    again.load_state_dict(made.state_dict())
    again.pack()
    assert torch.equal(again(x), made(x))


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [12]])
def test_convolutions_as_matrix_products(sizes: list[int]) -> None:
    torch.manual_seed(0)
    for plain, form, dim in (
        (CausalConvLast(6, 4, 5, dilation=3), MatrixConv, 1),
        (CausalConvTranspose1d(6, 4, 9, 3), MatrixConvTranspose, 2),
    ):
        name_modules(plain)
        plain.path, x = "layer", torch.randn(2, 12, 6) if dim == 1 else torch.randn(2, 6, 12)
        made, state = form(plain), StreamState()
        y = torch.cat([made(piece, state) for piece in x.split(sizes, dim)], dim)
        assert torch.allclose(y, plain(x), atol=1e-5)


# ---------------------------------------------------------------- the whole model


def test_int8_is_near_the_plain_model(plain: MichiAIModel, fast: MichiAIModel) -> None:
    assert error(run(fast, frames=6), run(plain, frames=6)) < 0.1
    assert fast.backbone.memory_dtype == torch.bfloat16 and fast.config.optimized == "cpu-int8"


def test_nano_in_int8_says_the_next_frame_as_in_float(form: str) -> None:
    """After each frame of an answer both forms have the float one's sound and words behind them."""
    plain = load_model()
    fast, off = copy.deepcopy(plain).optimize("cpu-int8"), []
    for text in ("the capital of france is paris", "seven plus eight is fifteen", "your name is nora"):
        session, other = plain.session(), fast.session()
        for model, state in ((plain, session.state), (fast, other.state)):
            model.inject(state, session._tokens(f"repeat after me {text}"))
        session._queue = [session.special["<turn>"], *session._tokens(text)[0].tolist(), session.special["<done>"]]
        while session._queue:
            session.hear(torch.zeros(plain.config.frame_size))
            audio, noise = (part[None] for part in session.next_inputs())
            out = plain.step(audio, session.state, noise, choose=session.choose)
            near = fast.step(audio, other.state, noise, choose=lambda logits, out=out: out.own_text)
            session.follow(out, 0, 0.0)
            other.state |= {name: session.state[name].clone() for name in ("latent", "own_text", "user_text")}
            off += [(near.latent - out.latent).square().mean()] if session.speaking else []
    mean = float(torch.stack(off).mean())
    print(f"nano's latents in the int8 form ({form}) are off by {mean:.4f}, mean square over {len(off)} frames; their variance is 1")
    assert len(off) > 40 and mean < 0.005


@pytest.mark.parametrize("half", [False, True])
def test_without_kernels_the_vocoder_computes_in_what_is_fast(
    form: str, half: bool, plain: MichiAIModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimize_michiai, "half_is_fast", lambda device: half)
    made = copy.deepcopy(plain).optimize("cpu-int8")
    assert made.vocoder.norm.weight.dtype == (torch.bfloat16 if half or form == "kernels" else torch.float32)
    made.save_pretrained(tmp_path)
    assert torch.equal(run(MichiAIModel.from_pretrained(tmp_path), frames=3), run(made, frames=3))


def test_joined_projections_serve_the_llm_s_own_forward_too(plain: MichiAIModel, fast: MichiAIModel) -> None:
    layer = fast.backbone.language_model.model.layers[0]
    assert isinstance(layer.self_attn.qkv_proj, Int8Linear) and isinstance(layer.mlp.gate_up, Int8Linear)
    x = torch.randn(2, 9, 128)
    with torch.no_grad():
        assert error(fast.backbone(x), plain.backbone(x)) < 0.1
    tokens = torch.arange(10, 20)[None]
    assert fast.generate(tokens, max_new_tokens=3, do_sample=False).shape == (1, 13)


@pytest.mark.parametrize("guidance", [0.0, 0.5])
def test_a_recorded_frame_equals_a_computed_one(fast: MichiAIModel, guidance: float) -> None:
    def sound() -> Tensor:
        state, rows = StreamState(), 2
        prompt = torch.arange(10, 30)[None].expand(rows, -1)
        fast.prompt(state, prompt, fast.default_voice[None].expand(rows, -1, -1), guidance)
        return run(fast, state, rows=rows)

    recorded, runner = sound(), fast.runner
    fast.runner = None
    try:
        assert torch.allclose(recorded, sound(), atol=1e-5)
    finally:
        fast.runner = runner


def test_rows_that_are_not_due_stay_as_they_were_in_a_recorded_frame(fast: MichiAIModel) -> None:
    def sounds() -> Tensor:
        """Of three rows, each of which is due in two frames of three, what it says when it is."""
        state, rows, sound = StreamState(), 3, [[], [], []]
        fast.prompt(state, torch.arange(10, 30)[None].expand(rows, -1), fast.default_voice[None].expand(rows, -1, -1))
        generators = [torch.Generator().manual_seed(0) for _ in range(rows)]
        for index in range(FRAMES):
            due = torch.arange(rows) != index % rows
            audio, noise = torch.randn(rows, fast.config.frame_size), torch.randn(rows, fast.config.latent_dim)
            for row in due.nonzero()[:, 0].tolist():
                audio[row] = 0.1 * torch.randn(fast.config.frame_size, generator=generators[row])
                noise[row] = torch.randn(fast.config.latent_dim, generator=generators[row])
            out = fast.step(audio, state, noise, due=due)
            for row in due.nonzero()[:, 0].tolist():
                sound[row].append(out.audio[row])
        return torch.stack([torch.stack(one[:24]) for one in sound])

    recorded, runner = sounds(), fast.runner
    assert error(recorded[1], recorded[0]) < 1e-4 and error(recorded[2], recorded[0]) < 1e-4, "they heard the same"
    fast.runner = None
    try:
        assert torch.allclose(recorded, sounds(), atol=1e-5)
    finally:
        fast.runner = runner


def test_a_frame_without_words_computes_nothing_else(plain: MichiAIModel, monkeypatch: pytest.MonkeyPatch) -> None:
    due: list[int] = []
    monkeypatch.setattr(modeling_michiai, "words_due", lambda *given: due.append(words_due(*given)) or due[-1])
    skipping = run(plain)
    assert set(due) == {0, 1, 2}, "the test needs frames of all kinds"
    monkeypatch.setattr(modeling_michiai, "words_due", lambda *given: ENTERING)
    torch.testing.assert_close(run(plain), skipping, atol=2e-5, rtol=0)


def test_recorded_frames_keep_the_contract_of_memory(form: str, fast: MichiAIModel) -> None:
    """Fork, reset of a row, select and join; a state that has no prompt; one record for prompts of near
    lengths.
    """
    state = StreamState()
    fast.prompt(state, torch.arange(10, 30)[None].expand(2, -1), fast.default_voice[None].expand(2, -1, -1))
    run(fast, state, rows=2)
    twin, alone = state.fork(), state.select(torch.tensor([1]))
    after = run(fast, state, rows=2, seed=1)
    assert torch.allclose(run(fast, twin, rows=2, seed=1), after, atol=1e-5)
    joined = StreamState.join([alone.fork(), alone])
    both = run(fast, joined, rows=2, seed=2)
    joined.reset(torch.tensor([True, False]))
    fresh = run(fast, StreamState(), rows=2, seed=3)
    assert error(run(fast, joined, rows=2, seed=3)[0], fresh[0]) < 0.1 and torch.isfinite(both).all()
    before = count_records(fast)
    for count in (7, 8, 9):
        other = StreamState()
        fast.prompt(other, torch.arange(10, 10 + count)[None], fast.default_voice[None])
        run(fast, other, frames=1)
    near = count_records(fast)
    assert near["think"] <= before["think"] + ENTERING + 1, "one record for each number of words"
    assert bool(fast.runner.loops.made) == (form == "operations"), "layers are in loops where no kernel goes through them"
    other = StreamState()
    fast.prompt(other, torch.arange(10, 300)[None], fast.default_voice[None])
    run(fast, other, frames=1)
    assert count_records(fast) == near | {"think": near["think"] + ENTERING + 1}, "hearing and sound know nothing of a longer prompt"


def test_after_the_warm_up_no_conversation_waits_for_a_record(plain: MichiAIModel, tokenizer) -> None:
    fast = copy.deepcopy(plain).optimize("cpu-int8")
    fast.tokenizer, fast.config.speak_config = tokenizer, replace(fast.config.speak_config, guidance=0.5)
    fast.warm_up()
    before = count_records(fast)
    for voice in (None, Voice(torch.randn(40, fast.config.latent_dim))):
        with fast.session(voice=voice, instructions="be brief.", context="the train leaves at nine.") as session:
            session.push(torch.randn(fast.config.sampling_rate) * 0.1)
    assert count_records(fast) == before


def test_threads_record_and_replay_side_by_side(plain: MichiAIModel) -> None:
    fast, wanted = copy.deepcopy(plain).optimize("cpu-int8"), copy.deepcopy(plain).optimize("cpu-int8")
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda rows: run(fast, rows=rows, frames=5), (1, 2, 1, 2)))
    for rows, one in zip((1, 2, 1, 2), made, strict=True):
        assert torch.allclose(one, run(wanted, rows=rows, frames=5), atol=1e-5)
    assert count_records(fast) == count_records(wanted), "none was made twice"


def test_a_copy_of_a_faster_model_records_its_own_frames(fast: MichiAIModel) -> None:
    wanted, copied = run(fast, frames=5), copy.deepcopy(fast)
    assert copied.runner.model is copied and not copied.runner.records
    assert torch.equal(run(copied, frames=5), wanted)


def test_two_conversations_take_turns_on_one_graph(plain: MichiAIModel) -> None:
    """The lines around a CUDA graph, without the capture."""
    wanted = [run(plain, seed=s, frames=8) for s in (1, 2)]
    plain.runner, states, got = GraphRunner(plain), [], []
    try:
        for _ in range(2):
            states.append(StreamState())
            plain.prompt(states[-1], torch.arange(10, 30)[None], plain.default_voice[None])
        generators = [torch.Generator().manual_seed(s) for s in (1, 2)]
        for _ in range(8):
            for state, g in zip(states, generators, strict=True):
                audio = 0.1 * torch.randn(1, plain.config.frame_size, generator=g)
                got.append(
                    plain.step(audio, state, torch.randn(1, plain.config.latent_dim, generator=g)).audio
                )
    finally:
        plain.runner = None
    for s in (0, 1):
        assert torch.allclose(torch.stack(got[s::2], 1), wanted[s], atol=1e-5)


def test_the_form_of_a_gpu_computes_in_bfloat16(plain: MichiAIModel, tokenizer) -> None:
    """What `optimize("cuda")` does, on the CPU."""
    made = use_graph(copy.deepcopy(plain), "cpu")
    sound = run(made, frames=4)
    assert sound.isfinite().all() and error(sound, run(plain, frames=4)) < 0.2
    assert made.dtype == torch.bfloat16 and made.runner.lent
    voice = made.voice((torch.randn(32_000).numpy() * 0.1, 16_000))
    assert voice.latents.isfinite().all()
    made.tokenizer = tokenizer
    with made.session(voice=voice, context="the train leaves at nine.") as session:
        session.inject("it is late.")
        assert all(frame.audio.isfinite().all() for frame in session.push(torch.randn(16_000) * 0.1))
    assert made.transcribe((torch.randn(16_000).numpy() * 0.1, 16_000)).text is not None
    assert made.speak("no.").isfinite().all()


def test_saved_and_loaded(plain: MichiAIModel, fast: MichiAIModel, tmp_path: Path) -> None:
    fast.save_pretrained(tmp_path)
    again = MichiAIModel.from_pretrained(tmp_path)
    mine, theirs = fast.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys() and all(
        torch.equal(mine[k], theirs[k]) for k in mine
    )
    assert any(v.dtype == torch.int8 for v in theirs.values())
    assert error(run(again, frames=6), run(fast, frames=6)) < 0.1
    with pytest.raises(ValueError, match="dtype is torch.bfloat16, but this checkpoint is optimised"):
        MichiAIModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert (tmp_path / "model.safetensors").stat().st_size < 0.5 * sum(v.nbytes for v in plain.state_dict().values())


def test_a_fast_model_whose_weights_move(fast: MichiAIModel) -> None:
    """Into memory that processes share, say; what its kernels cannot do is refused, and changes nothing."""
    model = copy.deepcopy(fast)
    with pytest.raises(ValueError, match="optimised for torch.float32 on cpu and was asked to become torch.bfloat16"):
        model.to(torch.bfloat16)
    wanted = run(model, frames=3)
    moved = model.share_memory()
    freed = torch.full((20, 2**20), float("nan"))  # what is let go of is used for something else
    assert moved is model and torch.equal(run(model, frames=3), wanted) and freed.isnan().all()


def held(file: Path) -> int:
    """Kilobytes of a mapped file in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    return sum(int(next(x for x in lines if x.startswith("Rss:")).split()[1]) for line in lines if line.endswith(str(file)))


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's list of mapped files")
def test_a_loaded_fast_model_holds_of_its_file_what_it_needs_seldom(fast: MichiAIModel, tmp_path: Path) -> None:
    fast.save_pretrained(tmp_path)
    loaded = MichiAIModel.from_pretrained(str(tmp_path))
    assert loaded.config.optimized and held(tmp_path / "model.safetensors") == 0
    reference = torch.randn(32_000).numpy() * 0.1, 16_000
    assert torch.equal(loaded.voice(reference).latents, fast.voice(reference).latents)
    assert held(tmp_path / "model.safetensors") > 0
    loaded.save_pretrained(tmp_path)  # over the file that it reads from
    again, mine = MichiAIModel.from_pretrained(tmp_path).state_dict(), fast.state_dict()
    assert all(torch.equal(mine[k], again[k]) for k in mine)


def test_optimised_when_loaded_and_in_a_session(folder: Path) -> None:
    model = MichiAIModel.from_pretrained(folder).optimize("cpu-int8")
    with model.session(context="the train leaves at nine") as session:
        frames = session.push(torch.randn(16_000) * 0.1)
        twin = session.fork()
        sound = torch.randn(3 * model.config.frame_size) * 0.1
        a, b = session.push(sound), twin.push(sound)
    assert len(frames) == 12 and all(torch.equal(x.audio, y.audio) for x, y in zip(a, b, strict=True))
    assert model.transcribe((torch.randn(16_000).numpy() * 0.1, 16_000)).text is not None


def test_the_form_that_belongs_to_a_machine(plain: MichiAIModel, fast: MichiAIModel, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = fast.runner
    assert copy.deepcopy(plain).optimize().config.optimized == "cpu-int8"
    assert fast.optimize() is fast and fast.runner is runner
    monkeypatch.setattr(optimize_michiai, "has_int8", lambda: False)
    assert plain.optimize() is plain and plain.runner is None and plain.config.optimized is None
    with pytest.raises(ValueError, match="no C.. compiler, and this PyTorch has no fbgemm kernels; expected"):
        plain.optimize("cpu-int8")


def test_errors(plain: MichiAIModel, fast: MichiAIModel) -> None:
    with pytest.raises(ValueError, match="'gpu'; expected one of"):
        plain.optimize("gpu")
    with pytest.raises(ValueError, match="optimised already"):
        fast.optimize("cpu-int8")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA device"):
            plain.optimize("cuda")
    with pytest.raises(ValueError, match="config.optimized is 'int2'"):
        tiny_config(optimized="int2")
