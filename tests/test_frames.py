"""Rows of the duplex stage: the text lane of a dialogue is its text, and every part learns from them."""

import numpy as np
import pytest
import torch

from michiai.backbone_michiai import DONE, TURN, WORD
from michiai.data.grammar import make_script
from michiai.data.text import dialogue_text
from michiai.lanes_michiai import ASIDE, SOUND, TEXT
from michiai.training.duplex import DuplexStage
from michiai.training.frames import IGNORE, Rows, virtual_dialogue
from michiai.training.prepare import played, timed
from michiai.training.text import own_words

from helpers import TINY, tiny_config


@pytest.fixture(scope="module")
def rows(tokenizer) -> Rows:
    listen = TINY["listen_config"] | {"delay": 0}  # no piece of a word comes after the answer has begun
    return Rows((), tokenizer, tiny_config(len(tokenizer), listen_config=listen, window=400, text_window=200, max_prompt=300))


def made(rows: Rows, monkeypatch, behaviour: str, seed: int) -> tuple[str, dict[str, torch.Tensor]]:
    """The text form of a virtual dialogue and its row in a batch of one."""
    from michiai.training import frames

    script = make_script(np.random.default_rng(seed), "train", behaviour)
    monkeypatch.setattr(frames, "make_script", lambda rng, split: script)
    monkeypatch.setattr(frames, "misheard", lambda rng, script: script)
    monkeypatch.setattr(frames, "similar", lambda given, n, rng, length: given[:n])
    batch = rows(0, np.random.default_rng(seed), 1)
    return dialogue_text(script), {name: value[0] for name, value in batch.items()}


@pytest.mark.parametrize("behaviour", ["plain", "context", "inject", "pause"])
@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_the_text_lane_of_a_dialogue_is_its_text(rows: Rows, monkeypatch, behaviour: str, seed: int) -> None:
    text, row = made(rows, monkeypatch, behaviour, seed)
    lane = row["text"][row["kind"] == TEXT]
    if behaviour == "inject":  # what arrives stands behind the `<user>` that follows an answer
        text = text.replace("<done> <context>", "<done> <user> <context>")
    wanted = rows.tokens(text)
    assert lane[: len(wanted)].tolist() == wanted and lane[len(wanted) :].tolist() in ([], rows.tokens("<user>"))
    coming, mine = row["next"][row["kind"] == TEXT], row["mine"][row["kind"] == TEXT]
    assert torch.equal(coming[:-1], lane[1:]) and coming[-1] == 0
    special = rows.config.special_tokens
    assert torch.equal(mine[:-1], own_words(lane[None], special["<turn>"], special["<done>"])[0, 1:])


def test_frames_say_when_words_turns_and_ends_are_due(rows: Rows, monkeypatch) -> None:
    _, row = made(rows, monkeypatch, "plain", 1)
    frame = row["target"] != IGNORE
    own = torch.cat([row["own"][frame][1:], row["own"].new_zeros(1)])
    special, target = rows.config.special_tokens, row["target"][frame]
    assert (row["kind"][frame] == SOUND).all() and set(target.tolist()) == {0, WORD, TURN, DONE}
    assert torch.equal(target == TURN, own == special["<turn>"]) and torch.equal(target == DONE, own == special["<done>"])
    assert torch.equal(target > 0, own > 0)
    for at in (row["own"] > 0).nonzero()[:, 0].tolist():  # one's own word is known before the next frame
        assert row["own"][at] in row["text"][at - 2 : at]


def test_words_in_an_answer_are_asides(rows: Rows, monkeypatch) -> None:
    asides = 0
    for seed in range(4):
        _, row = made(rows, monkeypatch, "user_backchannel", seed)
        assert torch.equal(row["kind"] == ASIDE, row["text"] < 0) and not row["next"][row["kind"] == ASIDE].any()
        asides += int((row["kind"] == ASIDE).sum())
    assert asides > 0


def test_turns_follow_the_timings_of_a_script() -> None:
    script = make_script(np.random.default_rng(3), "train", "barge_in")
    turns = virtual_dialogue(script, np.random.default_rng(3))["turns"]
    assert [turn["who"] for turn in turns] == [turn.who for turn in script.turns]
    cut = next(i for i, turn in enumerate(script.turns) if turn.timing == "interrupt")
    assert turns[cut]["start"] < turns[cut - 1]["end"] <= turns[cut]["start"] + 0.76


@pytest.mark.parametrize("speed", [0.85, 1.18])
def test_a_copy_at_another_speed_has_its_words_where_they_sound(speed: float) -> None:
    clip = np.zeros(16_000, np.int16)
    clip[6_000:7_000] = 20_000 * np.sin(np.arange(1_000))
    info = {"user_words": [], "model_words": [("hey", 0.375, 0.4375)], "model_voice": "a", "injections": [(0.5, "so")],
            "turns": [{"who": "model", "start": 0.375, "end": 0.4375, "text": "hey", "timing": "after"}]}
    copy, told = played(clip, speed), timed(info, speed)
    loud = np.flatnonzero(np.abs(copy) > 10_000) / 16_000
    assert copy.dtype == np.int16 and len(copy) == round(len(clip) / speed)
    assert told["model_words"] == [("hey", pytest.approx(loud[0], abs=1e-3), pytest.approx(loud[-1], abs=1e-3))]
    assert (told["turns"][0]["start"], told["turns"][0]["end"]) == told["model_words"][0][1:]
    assert told["injections"] == [(0.5 / speed, "so")] and told["model_voice"] != info["model_voice"]


def test_every_part_learns_from_a_batch(rows: Rows) -> None:
    torch.manual_seed(0)
    stage = DuplexStage(rows.config)
    batch = rows(0, np.random.default_rng(5), 2)
    frame = batch["target"] != IGNORE
    batch["heard"] = torch.randn_like(batch["heard"]) * frame[..., None]
    batch["latent"], batch["goal"], batch["flow"] = torch.randn_like(batch["latent"]), torch.randn_like(batch["goal"]), frame.float()
    losses = stage(batch, 0)
    assert {"gate", "word", "plain", "flow", "distil"} <= set(losses) and all(torch.isfinite(v) for v in losses.values())
    losses["loss"].backward()
    missing = [name for name, p in stage.named_parameters() if p.grad is None or not p.grad.any()]
    assert all("user_mark" in name or "lm_head" in name for name in missing), missing


def test_blended_voices_lie_between_two_and_leave_silence_as_it_is(rows: Rows, monkeypatch) -> None:
    monkeypatch.setattr("michiai.training.duplex.BLENDED", 1.0)
    torch.manual_seed(0)
    stage, (n, P, L) = DuplexStage(rows.config), (6, 12, rows.config.latent_dim)
    kind, frame = torch.full((n, P), SOUND), torch.arange(P)[None].expand(n, P) >= 4
    kind[:, 0] = TEXT
    voices = torch.randn(n, 1, L)
    latent, goal = voices.expand(n, P, L).clone(), voices.expand(n, P, L).clone()
    silence = torch.full((L,), 0.1)
    latent[:, 0] = latent[:, 4] = goal[:, :4] = 0  # text; no sound before the first frame; no goal before it
    goal[:, 4:7] = silence
    latent[-1], goal[-1] = 0, 0  # a dialogue without any sound
    after = stage.blended({"kind": kind, "frame": frame, "latent": latent, "goal": goal})
    assert torch.equal(after["latent"][:, [0, 4]], latent[:, [0, 4]]) and not after["latent"][-1].any() and not after["goal"][-1].any()
    assert torch.equal(after["goal"][:, :7], goal[:, :7])
    moved = after["goal"][:, -1] - goal[:, -1]
    assert moved[:-1].norm(dim=-1).count_nonzero() >= 2
    assert torch.allclose(after["latent"][:, 2] - latent[:, 2], moved, atol=1e-6), "prompt and frames move together"
    own = voices[:, 0]
    for row in moved[:-1].norm(dim=-1).nonzero()[:, 0].tolist():
        ways = [(moved[row] / (own[k] - own[row])) for k in range(n - 1) if k != row]
        assert any(torch.allclose(way, way.mean().expand(L), atol=1e-3) and 0 < way.mean() < 1 for way in ways)


def test_some_rows_have_no_voice_and_their_frames_stay(rows: Rows) -> None:
    stage, (n, P, L) = DuplexStage(rows.config), (400, 6, rows.config.latent_dim)
    kind, frame = torch.full((n, P), SOUND), torch.arange(P)[None].expand(n, P) >= 4
    kind[:, 0] = TEXT
    batch = {"kind": kind, "frame": frame, "latent": torch.ones(n, P, L), "goal": torch.ones(n, P, L)}
    after = stage.voiceless(batch)
    without = (after["latent"] == 0).all(-1)
    assert 0.04 < without[:, 1].float().mean() < 0.18
    assert torch.equal(without, without[:, 1:2] & (kind == SOUND) & ~frame) and after["goal"] is batch["goal"]


def test_from_a_reading_the_speak_head_alone_learns(rows: Rows, monkeypatch) -> None:
    n, config = 40, rows.config
    own = [0] * n
    own[3], own[4], own[20] = config.special_tokens["<turn>"], rows.tokens("cold")[0], config.special_tokens["<done>"]
    entry = {"voice": torch.randn(5, config.latent_dim), "heard": torch.randn(n, config.listen_config.width),
             "latents": torch.randn(n, config.latent_dim), "user": torch.zeros(n, dtype=torch.long), "own": torch.tensor(own)}
    monkeypatch.setattr(rows, "dialogues", [(n, 0, 0, {"injections": [], "behaviour": "plain"})])
    monkeypatch.setattr(rows, "readings", [(n, 0, 0, {"injections": [], "behaviour": "reading"})])
    monkeypatch.setattr(rows, "spoken", lambda shard, i, info, rng: {"info": info, **entry})
    monkeypatch.setattr(rows, "virtual", 0.0)
    batches = {}
    for share, kind in ((0.0, "plain"), (1.0, "reading")):
        monkeypatch.setattr(rows, "read", share)
        batches[kind] = rows(0, np.random.default_rng(1), 2)
    dictated, decided = batches["reading"], batches["plain"]
    assert (dictated["target"] == IGNORE).all() and not dictated["next"].any()
    assert (decided["target"] == TURN).any() and decided["next"].any()
    assert all(torch.equal(dictated[name], decided[name]) for name in ("kind", "text", "own", "frame", "latent", "goal", "flow"))
    torch.manual_seed(0)
    losses = DuplexStage(config)(dictated, 0)
    assert set(losses) == {"plain", "loss", "flow", "distil"} and torch.isfinite(losses["loss"])
