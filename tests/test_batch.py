"""Conversations together: each is what it would be alone, whenever its frames come."""

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from michiai.graph_michiai import GraphRunner
from michiai.modeling_michiai import MichiAIModel
from michiai.session_michiai import DuplexSession, Frame, GenerationOptions
from michiai.voice_michiai import Voice

from helpers import speech

FRAMES = 40  # past the tiny window of 30


@pytest.fixture(scope="module", params=["eager", "graph"])
def talker(request: pytest.FixtureRequest, model: MichiAIModel) -> Iterator[MichiAIModel]:
    """As it stands, and with fixed memories as of a CUDA graph, without the capture. All random weights: it says something all the time."""
    made = copy.deepcopy(model)
    made.tokenizer = model.tokenizer
    with torch.no_grad():
        made.listen.gates.bias[0] = 0.0  # it hears something in many frames
        made.backbone.gate.bias[1:] += 1.0
    if request.param == "graph":
        made.runner = GraphRunner(made)
    yield made


def begun(model: MichiAIModel, index: int) -> DuplexSession:
    """A conversation unlike the others: prompt, voice, seed."""
    voice = Voice(torch.randn(5 + 9 * index, model.config.latent_dim, generator=torch.Generator().manual_seed(index)))
    return model.session(voice=voice, context="the train leaves at nine. " * (1 + 2 * index), seed=index)


def said(frames: list[Frame]) -> list[tuple]:
    return [(f.index, f.text, f.user_text, f.speaking) for f in frames]


def assert_same(made: list[Frame], wanted: list[Frame]) -> None:
    assert said(made) == said(wanted) and len(made) >= FRAMES - 2
    assert any(f.text for f in made) and any(f.user_text for f in made), "the test needs words"
    for name in ("audio", "turn_probability"):
        a, b = (torch.stack([torch.as_tensor(getattr(f, name)) for f in frames]) for frames in (made, wanted))
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_each_conversation_is_as_it_would_be_alone(talker: MichiAIModel) -> None:
    """Three in a batch of four, each entering and leaving in its own time, in chunks of its own size, told something in between."""
    sound = [speech(FRAMES * 0.08, seed=index) for index in range(3)]
    rng = np.random.default_rng(0)
    cuts = [np.cumsum(rng.integers(100, 4000, 200)) for _ in sound]
    pieces = [np.split(pcm, cut[cut < len(pcm)]) for pcm, cut in zip(sound, cuts, strict=True)]

    def story(session: DuplexSession, n: int) -> None:
        if n == 7:
            session.inject("it is late.")
        if n == 11:
            session.stop()

    wanted: list[list[Frame]] = []
    for index, mine in enumerate(pieces):
        with begun(talker, index) as session:
            frames: list[Frame] = []
            for n, piece in enumerate(mine):
                story(session, n)
                frames += session.push(piece)
        wanted.append(frames)
    batch, sessions, made = talker.batch(4), {}, [[] for _ in pieces]
    for step in range(max(map(len, pieces)) + 8):
        given = []
        for index, mine in enumerate(pieces):
            n = step - 4 * index
            if n == 0:
                sessions[index] = begun(talker, index)
                batch.add(sessions[index])
            if 0 <= n < len(mine):
                story(sessions[index], n)
                given.append((index, (sessions[index], mine[n], None)))
            if n == len(mine):
                sessions[index].close()
        for (index, _), frames in zip(given, batch.push([call for _, call in given]), strict=True):
            made[index] += frames
    assert batch.sessions == batch.rows == []
    for one, alone in zip(made, wanted, strict=True):
        assert_same(one, alone)


def test_a_session_in_a_batch_is_used_as_any_other(talker: MichiAIModel) -> None:
    pcm, batch = speech(FRAMES * 0.08), talker.batch(2)
    half = len(pcm) // 2
    with begun(talker, 1) as alone:
        wanted = alone.push(pcm)
        after = alone.push(pcm)
    with begun(talker, 1) as session, begun(talker, 0) as other:
        batch.add(session)
        batch.add(other)
        made = session.push(pcm[:half])
        twin = session.fork()
        other.push(pcm)
        assert twin.batch is None
        assert_same(made + twin.push(pcm[half:]), wanted)
        assert_same(made + session.push(pcm[half:]), wanted)
        batch.remove(session)
        assert_same(session.push(pcm), after)
        batch.add(session)
        session.reset()
        assert_same(session.push(pcm), wanted)
        session.close()
        with pytest.raises(ValueError, match="the session is closed"):
            session.push(pcm)


def test_there_are_as_many_rows_as_are_needed(talker: MichiAIModel) -> None:
    batch, sessions = talker.batch(5), [begun(talker, index % 3) for index in range(5)]
    assert batch.sizes == [2, 4, 5] and talker.batch(1).sizes == [] and talker.batch(8).sizes == [2, 4, 8]
    pcm, sizes, made = speech(FRAMES * 0.08), [0, 2, 4, 4, 5], []
    with begun(talker, 0) as alone:
        wanted = alone.push(pcm)
    pieces = iter(np.split(pcm, 10))
    for session, size in zip(sessions, sizes, strict=True):
        batch.add(session)
        assert len(batch.rows) == size and (session.state is None) == (size > 0)
        made += sessions[0].push(next(pieces))
    for session, size in zip(sessions[:0:-1], sizes[-2::-1], strict=True):
        session.close()
        assert len(batch.rows) == size
        made += sessions[0].push(next(pieces))
    made += sessions[0].push(next(pieces))
    assert_same(made, wanted)


def test_errors(talker: MichiAIModel) -> None:
    with pytest.raises(ValueError, match="0 sessions; expected 1 or more"):
        talker.batch(0)
    batch = talker.batch(1)
    guided = talker.session(voice=Voice(torch.zeros(9, talker.config.latent_dim)), options=GenerationOptions(voice_guidance=0.5))
    for session in (guided, talker.session(options=GenerationOptions(flow_steps=2))):
        with pytest.raises(ValueError, match="expected one flow step and no guidance"):
            batch.add(session)
    first, second = talker.session(), talker.session()
    batch.add(first)
    with pytest.raises(ValueError, match="in a batch already"):
        batch.add(first)
    with pytest.raises(ValueError, match="all 1 places of the batch are taken; expected a free one"):
        batch.add(second)
    with pytest.raises(ValueError, match="not in this batch"):
        batch.remove(second)
    with pytest.raises(ValueError, match="given twice"):
        batch.push([(first, speech(0.1), 16_000)] * 2)
    with pytest.raises(ValueError, match="NaN"):
        batch.push([(first, np.full(1280, np.nan, np.float32), None)])
    first.close()
    batch.add(second)
    assert len(second.push(np.zeros(1280, np.float32))) == 1
    both, silence, third = talker.batch(2), np.zeros(1280, np.float32), talker.session()
    both.add(third)
    both.add(talker.session())
    with pytest.raises(ValueError, match="NaN"):  # of one: the other's sound is not taken twice when all is given again
        both.push([(third, silence, None), (both.sessions[1], np.full(1280, np.nan, np.float32), None)])
    assert [len(frames) for frames in both.push([(session, silence, None) for session in both.sessions])] == [1, 1]
    with pytest.raises(ValueError, match="of another model than the batch"):
        batch.add(copy.deepcopy(talker).session())
    with pytest.raises(ValueError, match="closed; expected an open one|or closed"):
        batch.add(first)
