"""The listen head hears the same in any chunks, and its training data says what was said when."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from michiai.codec_michiai import LogMel
from michiai.configuration_michiai import ListenConfig, MichiAIConfig
from michiai.listen_michiai import (
    EXPECTED_GAIN,
    EXPECTED_SLOTS,
    FORESEEN_GAIN,
    LEAST_FORESEEN,
    ListenHead,
    ListenOutput,
    expect,
    expected_gain,
    foresee,
    foreseen_gain,
    greedy_text,
    remember_newest,
    token_logits,
    transcribe_frames,
)
from michiai.streaming_michiai import StreamState
from michiai.training.audio_data import (
    ListenBatches,
    Shards,
    augment_audio,
    augment_mel,
    noise_bank,
    reverberate,
    turn_target,
    warp_mel,
)
from michiai.training.listen import ListenStage, word_errors

from average import average
from grow import grow

FRAME = 1280


class WordTokenizer:
    """One token per word."""

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": [1 + sum(map(ord, text.strip())) % 29]}


@pytest.fixture
def config() -> MichiAIConfig:
    return MichiAIConfig(listen_config=ListenConfig(conv_width=24, width=32, layers=2, heads=2, window=7))


@pytest.fixture
def listen(config: MichiAIConfig) -> ListenHead:
    torch.manual_seed(0)
    return ListenHead(config, 16).eval()


@pytest.fixture
def shards(tmp_path) -> Shards:
    rng = np.random.default_rng(0)
    seconds = [6.0, 9.0, 3.0]
    offsets = np.cumsum([0] + [int(s * 16_000) for s in seconds])
    audio = rng.integers(-3000, 3000, (2, offsets[-1])).astype(np.int16)
    save_file(
        {"audio": torch.from_numpy(audio), "offsets": torch.from_numpy(offsets)},
        tmp_path / "00000.safetensors",
    )
    info = {
        "behaviour": "plain",
        "user_voice": "flite:slt",
        "user_words": [["hello", 0.5, 0.9], ["there", 1.0, 1.6]],
        "model_words": [["yes", 2.2, 2.5]],
        "turns": [
            {"who": "user", "start": 0.5, "end": 1.6, "text": "hello there", "timing": "after"},
            {"who": "model", "start": 2.2, "end": 2.5, "text": "yes", "timing": "after"},
        ],
    }
    (tmp_path / "00000.jsonl").write_text("\n".join(json.dumps({"id": i} | info) for i in range(3)))
    return Shards(tmp_path)


@pytest.mark.parametrize("chunks", [[1] * 20, [20], [3, 1, 9, 7], [19, 1]], ids=str)
def test_streaming_is_offline(listen: ListenHead, chunks: list[int]) -> None:
    audio, text = torch.randn(2, 20 * FRAME) * 0.1, torch.randn(2, 20, 16)
    state, parts = StreamState(), []
    for piece, heard in zip(audio.split([c * FRAME for c in chunks], 1), text.split(chunks, 1), strict=True):
        parts.append(listen(piece, heard, state))
    whole = listen(audio, text)
    for name in ("embeds", "text_hidden", "emit_logits", "turn_logits"):
        streamed = torch.cat([getattr(part, name) for part in parts], dim=1)
        torch.testing.assert_close(streamed, getattr(whole, name), atol=2e-5, rtol=1e-4)


def test_the_future_is_not_heard(listen: ListenHead) -> None:
    audio, text = torch.randn(1, 12 * FRAME), torch.randn(1, 12, 16)
    changed = audio.clone()
    changed[:, 5 * FRAME :] = 0
    torch.testing.assert_close(listen(audio, text).embeds[:, :5], listen(changed, text).embeds[:, :5])


def test_a_token_is_heard_where_one_is_likelier_than_none(listen: ListenHead) -> None:
    table = torch.randn(30, 16)
    output = listen(torch.randn(2, 4 * FRAME), torch.randn(2, 4, 16))
    assert ((greedy_text(output, table) == 0) == (output.emit_logits <= 0)).all()


def test_transcribing_in_parts_goes_on(listen: ListenHead) -> None:
    torch.nn.init.normal_(listen.gates.weight)
    table, audio = torch.randn(30, 16), torch.randn(2, 18 * FRAME) * 0.3
    whole = transcribe_frames(listen, table, audio)
    state, previous, parts = StreamState(), None, []
    for piece in audio.split([5 * FRAME, 1 * FRAME, 12 * FRAME], dim=1):
        parts.append(transcribe_frames(listen, table, piece, state, previous))
        previous = parts[-1][0][:, -1]
    assert torch.equal(torch.cat([part[0] for part in parts], 1), whole[0])
    torch.testing.assert_close(torch.cat([part[1] for part in parts], 1), whole[1], atol=2e-5, rtol=1e-4)
    one = transcribe_frames(listen, table, audio[1:])
    assert torch.equal(one[0][0], whole[0][1])


def test_batches_are_functions_of_the_generator(shards: Shards) -> None:
    batches = ListenBatches(shards, WordTokenizer(), n_frames=40, delay=3)
    first, again = (batches(3, np.random.default_rng([7, 3]), 6) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["audio"].shape == (6, 48 * FRAME) and first["turn"].shape == (6, 2, 40)


@pytest.mark.parametrize("silent", ["user_words", "model_words"])
def test_where_one_side_is_silent_the_other_is_heard(shards: Shards, silent: str) -> None:
    for entry in shards.entries:
        entry.info[silent] = []
    batches = ListenBatches(shards, WordTokenizer(), n_frames=96, delay=3, shuffled=0.0)
    clips = [batches.clip(np.random.default_rng(i)) for i in range(20)]
    assert all(clip["letters"].any() for clip in clips)  # a reading's user would be 45 % of them, and silence
    turned = [bool(clip["turn"][1].any()) for clip in clips]
    assert all(turned) if silent == "model_words" else not any(turned)


def test_tokens_come_after_their_words(shards: Shards) -> None:
    batches = ListenBatches(shards, WordTokenizer(), n_frames=40, delay=3)
    info = shards.entries[0].info
    tokens = batches.targets(info, info["user_words"], 0, 0.0, 1.0)["tokens"]
    assert np.flatnonzero(tokens).tolist() == [11 + 3, 19 + 3]  # 0.9 s ends in frame 11, 1.6 s in frame 19
    faster = batches.targets(info, info["user_words"], 0, 0.5, 2.0)["tokens"]
    assert np.flatnonzero(faster).tolist() == [2 + 3, 6 + 3]
    assert batches.before_word(int(1.2 * 16_000), info["user_words"]) == int(0.98 * 16_000)


def test_turn_target() -> None:
    target, weight = turn_target([(0.5, 1.0), (2.0, 2.5)], 40, 0.08, known=False)
    times = (np.arange(40) + 1) * 0.08
    assert (target[times <= 1.0] == 0).all() and (target[(times > 1.3) & (times <= 2.0)] == 1).all()
    assert (target[(times > 2.0) & (times <= 2.5)] == 0).all() and target[-1] == 1
    assert (weight[times < 0.5] == 0).all() and weight[-1] == 1
    assert (turn_target([], 10, 0.08, known=True)[1] == 1).all()


def test_warping_moves_time_and_frequency() -> None:
    mel = torch.zeros(2, 80, 200)
    mel[:, 40, 100] = 1
    same = warp_mel(mel, torch.ones(2), 200, torch.ones(2), 8000.0)
    torch.testing.assert_close(same, mel, atol=1e-3, rtol=0)
    warped = warp_mel(mel, torch.tensor([1.25, 1.0]), 160, torch.tensor([1.0, 1.2]), 8000.0)
    assert warped[0].amax(0).argmax() in (79, 80) and warped[0].amax(1).argmax() == 40
    assert warped[1].amax(1).argmax() > 42


def test_a_room_adds_a_tail_after_the_sound_and_keeps_what_came_first() -> None:
    audio = torch.zeros(3, 16_000)
    audio[:, 1000] = 1.0
    torch.manual_seed(0)
    heard = reverberate(audio, 16_000)
    torch.testing.assert_close(heard[:, :1030], audio[:, :1030], atol=1e-5, rtol=0)  # nothing within 2 ms
    tail = heard[:, 1032:7400].norm(dim=1)
    assert (tail > 0.12).all() and (tail < 0.51).all()  # 18 to 6 dB below the sound
    assert heard[:, 7402:].abs().max() < 1e-4


def test_augmentation_is_finite_and_seeded() -> None:
    bank = noise_bank(3, 16_000)
    audio = torch.cat([torch.randn(3, 16_000) * 0.1, torch.zeros(1, 16_000)])
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        results.append((augment_audio(audio, bank, 16_000), augment_mel(torch.randn(4, 80, 100))))
    assert all(torch.isfinite(part).all() for part in results[0]) and results[0][0].abs().max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_loss_falls(config: MichiAIConfig, shards: Shards) -> None:
    torch.manual_seed(0)
    stage = ListenStage(config, torch.randn(30, 16), augment=False)
    assert not any(name.startswith(("table", "bank")) for name in stage.state_dict())
    batch = ListenBatches(shards, WordTokenizer(), n_frames=30, delay=3)(0, np.random.default_rng(0), 4)
    optimizer = torch.optim.Adam(stage.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        loss = stage(batch, step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_an_expected_piece_gains_where_its_word_has_come_to_it() -> None:
    state, like = StreamState(), torch.zeros(2, 1)
    assert expected_gain(state, 9, like)[:, 1:].eq(0).all()
    expect(state, [[3, 4], [5]], like)
    first, after = torch.zeros(2, 9), torch.zeros(2, 9)
    first[:, [3, 5]] = after[:, [3, 5]] = EXPECTED_GAIN
    after[0, 4] = EXPECTED_GAIN
    assert torch.equal(expected_gain(state, 9, like)[:, 1:], first[:, 1:])
    remember_newest(state, torch.tensor([3, 7]))
    remember_newest(state, torch.tensor([0, 0]))  # nothing new: the newest stays
    assert torch.equal(expected_gain(state, 9, like)[:, 1:], after[:, 1:])
    expect(state, [[piece] for piece in range(100, 100 + EXPECTED_SLOTS)], like)  # the newest words take the oldest's places
    assert expected_gain(state, 900, like)[:, 1:100].eq(0).all()
    expect(state, [], like)
    assert state["listen.expected"].shape == (2, EXPECTED_SLOTS, 2)


def test_the_gain_is_in_the_nats_of_token_logits() -> None:
    torch.manual_seed(0)
    table, hidden = torch.randn(30, 16), torch.randn(1, 1, 16)
    output = ListenOutput(hidden, hidden, torch.ones(1, 1), torch.ones(1, 1))
    log_probs = token_logits(hidden, table)[0, 0, 1:].log_softmax(-1)
    (best, other), (first, second) = log_probs.topk(2)
    for more, heard in ((-0.01, first), (0.01, second)):
        gain = torch.zeros(1, 30)
        gain[0, 1 + second] = best - other + more
        assert int(greedy_text(output, table, gain)) == 1 + int(heard)


def test_a_new_letter_head_learns_alone_at_first(config: MichiAIConfig, shards: Shards) -> None:
    stage = ListenStage(config, torch.randn(30, 16), augment=False)
    stage.letters_teach_from = 1
    batch = ListenBatches(shards, WordTokenizer(), n_frames=30, delay=3)(0, np.random.default_rng(0), 4)
    for step, taught in ((0, False), (1, True)):
        stage.zero_grad()
        stage(batch, step)["letter"].backward()
        assert stage.letters.weight.grad.abs().max() > 0
        assert (stage.listen.text_in.weight.grad is not None) == taught


def test_word_errors() -> None:
    assert word_errors("a b c".split(), "a c".split()) == 1
    assert word_errors("a b c".split(), "x a b d".split()) == 2
    assert word_errors([], ["a"]) == 1


def test_an_average_of_checkpoints_and_what_does_not_fit() -> None:
    one, other = {"a": torch.ones(2, dtype=torch.float16), "b": torch.ones(3)}, {"a": torch.zeros(2)}
    mean = average([0.25, 0.75], [one, other])
    assert list(mean) == ["a"] and mean["a"].dtype == torch.float32 and mean["a"].tolist() == [0.25, 0.25]
    three = [one, {**one, "letters.a": torch.ones(1)}, {**one, "letters.a": torch.zeros(1)}]
    assert average([0.2, 0.6, 0.2], three, "letters")["letters.a"].item() == pytest.approx(0.75)
    assert list(average([0.2, 0.6, 0.2], three)) == list(average([0.2, 0.6, 0.2], [one] * 3, "letters")) == ["a", "b"]
    with pytest.raises(ValueError, match=r"sum to 1.5; expected 1"):
        average([0.75, 0.75], [one, other])
    with pytest.raises(ValueError, match=r"a has the shapes \[\(2,\), \(3,\)\]"):
        average([0.5, 0.5], [one, {"a": torch.ones(3)}])
    with pytest.raises(ValueError, match="no tensor's name in common"):
        average([0.5, 0.5], [one, {"c": torch.ones(3)}])


def test_a_grown_head_hears_the_same_and_its_new_layers_learn(config: MichiAIConfig, listen: ListenHead) -> None:
    grown = grow({f"listen.{name}": t for name, t in listen.state_dict().items()}, [0, 1])
    config.listen_config.layers = 4
    deeper = ListenHead(config, 16)
    deeper.load_state_dict({name.removeprefix("listen."): t for name, t in grown.items()})
    audio, text = torch.randn(2, 9 * FRAME) * 0.1, torch.randn(2, 9, 16)
    heard = deeper(audio, text)
    assert torch.equal(heard.embeds, listen(audio, text).embeds)
    heard.embeds.square().sum().backward()
    assert all(deeper.transformer.layers[i].attention.out.weight.grad.abs().max() > 0 for i in (1, 3))
    with pytest.raises(ValueError, match=r"names the layers \[7\]; the file has \[0, 1\]"):
        grow({f"listen.{name}": t for name, t in listen.state_dict().items()}, [1, 7])


def test_what_the_llm_foresees_counts_for_the_next_word_and_rules_none_out() -> None:
    state, like = StreamState(), torch.zeros(2, 4)
    assert foreseen_gain(state, 5, like).eq(0).all() and foreseen_gain(state, 5, like).shape == (2, 5)
    log_probs = torch.tensor([[0.9, 0.04, 0.05, 0.01, 0.0]] * 2).log()
    foresee(state, log_probs, torch.tensor([True, False]), unsaid=[0, 1])
    gain = foreseen_gain(state, 5, like)
    wanted = FORESEEN_GAIN * torch.tensor([LEAST_FORESEEN, LEAST_FORESEEN, math.log(5 / 6), math.log(1 / 6), LEAST_FORESEEN])
    assert torch.allclose(gain[0], wanted) and gain[1].eq(0).all()
    assert log_probs[0, 0] == torch.tensor(0.9).log(), "the logits themselves stay as they are"


def test_log_mel_of_silence_has_a_finite_slope() -> None:
    audio = torch.zeros(1, 3200, requires_grad=True)
    LogMel(16_000, 512, 160, 20)(audio).sum().backward()
    assert audio.grad.isfinite().all()
