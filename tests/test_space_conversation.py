"""The Space's live conversations by themselves: what is played, the model's process, no server, no browser."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

from helpers import speech  # noqa: E402
from space.conversation import Conversation  # noqa: E402
from space.playout import KEEP, MOST, Playout  # noqa: E402
from space.worker import AGAIN, Worker  # noqa: E402

# -------------------------------------------------------------------- playout


def test_playout_gives_every_sample_in_order() -> None:
    playout, sound = Playout(16_000), np.random.default_rng(0).uniform(0.1, 0.9, 1280).astype(np.float32)
    playout.push(sound[:700])
    playout.push(sound[700:])
    assert np.array_equal(np.concatenate([playout.pull() for _ in range(4)]), sound)
    assert not playout.pull().any() and playout.gaps == 1


def test_playout_delay_cannot_grow() -> None:
    playout, loud, quiet = Playout(16_000), np.full(1280, 0.5, np.float32), np.zeros(1280, np.float32)
    for _ in range(50):  # a sender that is far too fast
        playout.push(loud)
        playout.pull()
    assert len(playout.pieces) <= MOST
    for _ in range(20):
        playout.push(quiet)
    playout.pull()
    while playout.pieces and playout.pieces[0].any():
        playout.pull()
    playout.pull()
    assert len(playout.pieces) <= KEEP, "silence in store is passed over"


def test_playout_is_cleared() -> None:
    playout = Playout(16_000)
    playout.push(np.ones(2000, np.float32))
    playout.clear()
    assert not playout.pull().any()


# -------------------------------------------------------------------- a conversation


def test_a_conversation_gives_a_frame_for_each_80_ms_and_sound_by_the_clock(engine) -> None:
    async def story() -> None:
        messages: list[dict] = []
        conversation = Conversation(engine, await engine.worker.open(), messages.append)
        work = asyncio.create_task(conversation.run())
        pcm = (speech(1.0, 48_000) * 32767).astype(np.int16)
        for count in range(1, 13):
            for start in range(0, 3840, 960):  # 80 ms arrive
                conversation.hear(48_000, pcm[start : start + 960])
            for _ in range(500):
                await asyncio.sleep(0.02)
                if len(messages) == count:
                    break
            assert [m["index"] for m in messages] == list(range(count)), (
                "the frame is there before more sound comes"
            )
        assert {"text", "heard", "level", "speaking", "turn"} <= messages[0].keys() and messages[0]["p95"] > 0
        began, loop = asyncio.get_running_loop().time(), asyncio.get_running_loop()
        sound = [await conversation.sound() for _ in range(10)]
        assert all(piece.shape == (320,) for piece in sound) and 0.19 < loop.time() - began < 0.6
        await conversation.inject("the train leaves at nine.")
        work.cancel()
        await conversation.close()
        with pytest.raises(ValueError, match="closed"):
            await engine.worker.push(conversation.session, pcm, 48_000)

    asyncio.run(story())


def test_live_sessions_go_through_the_model_together_and_alone(engine) -> None:
    """In the model's process: of each, and of the one that is left, what it would be by itself."""
    pcm = (speech(1.6, 48_000) * 32767).astype(np.int16)

    async def heard(session: int) -> np.ndarray:
        made = [await engine.worker.push(session, piece, 48_000) for piece in np.split(pcm, 20)]
        return np.concatenate([answer.audio for answers in made for answer in answers])

    async def story() -> None:
        first = await engine.worker.open(seed=1)
        alone = await heard(first)
        await engine.worker.close(first)
        both = [await engine.worker.open(seed=1), await engine.worker.open(seed=2)]
        for sound in await asyncio.gather(*map(heard, both)):
            assert sound.shape == alone.shape and np.isfinite(sound).all()
        with pytest.raises(ValueError, match="all 2 places of the batch are taken"):
            await engine.worker.open()
        await engine.worker.close(both[0])
        leaving = asyncio.create_task(engine.worker.open())  # one that goes before it is let in
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await engine.worker.close(await engine.worker.open())  # its place is free at once
        with pytest.raises(ValueError, match="NaN"):
            await engine.worker.push(both[1], np.full(3840, np.nan, np.float32), 48_000)
        with pytest.raises(RuntimeError, match="AttributeError"):  # something that should never happen ends nothing
            await asyncio.wrap_future(engine.worker._ask("sing"))
        with pytest.raises(ValueError, match="closed; expected an open one"):
            await engine.worker.close(99)
        third = await engine.worker.open(seed=1)
        assert np.isfinite(await heard(third)).all() and np.isfinite(await heard(both[1])).all()
        for session in (both[1], third):
            await engine.worker.close(session)

    asyncio.run(story())


def test_a_model_that_ends_is_told_and_followed_by_another(folder) -> None:
    async def story() -> None:
        worker = Worker(str(folder), 1)
        await asyncio.wrap_future(worker.ready)
        sound, session = np.zeros(1280, np.float32), await worker.open()
        worker.process.kill()
        for _ in range(2):  # whoever waits, and whoever comes next
            with pytest.raises(ValueError, match="has ended, and another one is being started: press Talk again"):
                await worker.push(session, sound, 16_000)
        await asyncio.sleep(AGAIN + 0.5)
        await asyncio.wrap_future(worker.ready)
        await Conversation(SimpleNamespace(worker=worker, rate=16_000), session, print).close()  # it went with the first: no error
        again = await worker.open()
        assert again != session and len(await worker.push(again, sound, 16_000)) == 1
        worker.stop()
        with pytest.raises(ValueError, match="has ended"):
            await worker.push(again, sound, 16_000)

    asyncio.run(story())


def test_a_slow_machine_skips_and_never_queues(engine, monkeypatch) -> None:
    async def story() -> None:
        conversation = Conversation(engine, await engine.worker.open(), lambda message: None)
        for _ in range(500):  # 10 s arrive while the model does nothing
            conversation.hear(48_000, np.zeros(960, np.int16))
        assert conversation._waiting <= 24_000 and conversation.skipped >= 470
        before = len(conversation._heard)
        conversation.hear(48_000, np.zeros(0, np.int16))
        assert len(conversation._heard) == before, "messages without sound are not kept"
        await conversation.close()

    asyncio.run(story())


def test_sound_in_store_is_dropped_when_the_user_interrupts(engine) -> None:
    from dataclasses import replace

    async def story() -> None:
        messages: list[dict] = []
        conversation = Conversation(engine, await engine.worker.open(), messages.append)
        conversation._rate = 48_000
        (frame,) = await engine.worker.push(conversation.session, np.zeros(1280, np.float32), 16_000)
        loud = frame.audio * 0 + 0.5
        conversation._levels.append(0.0)
        conversation._take(replace(frame, audio=loud, speaking=True), 0.0)
        conversation._take(replace(frame, audio=loud, speaking=False), 0.0)
        assert len(conversation.playout.pieces) == 8, "an answer that ends by itself is played to its end"
        conversation._take(replace(frame, audio=loud, speaking=True), 0.1)
        conversation._levels.append(0.1)
        conversation._take(replace(frame, audio=loud, speaking=False), 0.1)
        assert not conversation.playout.pieces and messages[-1]["interrupted"]
        await conversation.close()

    asyncio.run(story())
