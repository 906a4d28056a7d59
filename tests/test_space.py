"""The Space's parts by themselves: no server, no browser."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

import gradio as gr  # noqa: E402
from gradio.utils import is_static_file  # noqa: E402

from helpers import ROOT, speech  # noqa: E402
from space import live, page  # noqa: E402
from space.conversation import Conversation  # noqa: E402
from space.engine import Engine  # noqa: E402
from space.guard import ELSEWHERE, OwnOriginOnly  # noqa: E402
from space.offline import SHOWN, Offline  # noqa: E402
from space.places import Places  # noqa: E402
from space.playout import KEEP, MOST, Playout  # noqa: E402
from space.reference import COMPILING, check_reference, two_pitches  # noqa: E402
from space.settings import Settings  # noqa: E402
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


# -------------------------------------------------------------------- places


def test_places_are_given_in_order_and_everybody_knows_how_many_are_in_front() -> None:
    async def story() -> None:
        places, told, got, leave = Places(1), {}, [], {name: asyncio.Event() for name in "abcd"}

        async def visit(name: str) -> None:
            async with places.place(lambda ahead: told.setdefault(name, []).append(ahead)):
                got.append(name)
                await leave[name].wait()

        tasks = {}
        for name in "abcd":
            tasks[name] = asyncio.create_task(visit(name))
            await asyncio.sleep(0)
        assert got == ["a"] and told == {"b": [0], "c": [1], "d": [2]}
        tasks["b"].cancel()  # leaves the line
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert told["c"][-1] == 0 and told["d"][-1] == 1
        leave["a"].set()
        await asyncio.sleep(0.01)
        assert got == ["a", "c"] and told["d"][-1] == 0
        tasks["c"].cancel()  # leaves in the middle of its conversation
        await asyncio.sleep(0.01)
        assert got == ["a", "c", "d"]
        leave["d"].set()
        await asyncio.sleep(0.01)
        assert places.taken == 0 and not places.line

    asyncio.run(story())


def test_a_place_that_comes_as_its_visitor_leaves_is_not_lost() -> None:
    async def story() -> None:
        places, leave = Places(1), asyncio.Event()

        async def first() -> None:
            async with places.place(lambda ahead: None):
                await leave.wait()

        async def second() -> None:
            async with places.place(lambda ahead: None):
                await asyncio.sleep(60)

        holder = asyncio.create_task(first())
        await asyncio.sleep(0)
        waiter = asyncio.create_task(second())
        await asyncio.sleep(0)
        leave.set()
        places_before = places.taken
        await holder  # hands the place to the waiter, which is cancelled before it runs
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert places_before == 1 and places.taken == 0

    asyncio.run(story())


# -------------------------------------------------------------------- a conversation


@pytest.fixture(scope="module")
def engine(folder) -> Iterator[Engine]:
    made = Engine(str(folder), 2)
    yield made
    made.worker.stop()


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


def test_a_voice_of_the_page(engine, tmp_path: Path) -> None:
    import base64

    assert engine.voice_of_page(None) is None and set(engine.voices) == {"ada", "ben", "cleo"}
    assert engine.voice_of_page({"name": "ben"}) is engine.voices["ben"]
    engine.voices["ben"].save(tmp_path / "v.safetensors")
    text = base64.b64encode((tmp_path / "v.safetensors").read_bytes()).decode()
    assert engine.voice_of_page({"file": text}).latents.equal(engine.voices["ben"].latents)
    for choice, message in (
        ({"name": "nobody"}, "the voice is 'nobody'; expected one of 'ada'"),
        ({"file": "!!"}, "not base64"),
        ({"file": base64.b64encode(b"x" * 300_000).decode()}, "300000 bytes; expected at most"),
        ({"file": base64.b64encode(b"x" * 300).decode()}, "cannot be read as a voice"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.voice_of_page(choice)


def test_relays_are_asked_for_on_spaces_only_and_not_for_every_visitor(engine, monkeypatch) -> None:
    calls = []

    async def credentials(ttl: int) -> dict:
        calls.append(ttl)
        if len(calls) == 1:
            raise ValueError("no token")
        return {"iceServers": [{"urls": ["turn:relay"], "username": "u", "credential": "c"}]}

    async def story() -> None:
        site = live.Live(engine, Settings())
        monkeypatch.delenv("SPACE_ID", raising=False)
        assert await site.ice_servers() == {"iceServers": []} and not calls
        monkeypatch.setenv("SPACE_ID", "me/s")
        assert await site.ice_servers() == {"iceServers": []} and len(calls) == 1, "the WebSocket is left"
        first, second = await site.ice_servers(), await site.ice_servers()
        assert first == second and first["iceServers"] and len(calls) == 2
        assert site.stream.server_rtc_configuration.iceServers[0].username == "u"

    monkeypatch.setattr(live, "get_cloudflare_turn_credentials_async", credentials)
    asyncio.run(story())


# -------------------------------------------------------------------- the other tabs


@pytest.fixture
def offline(engine, tmp_path: Path, monkeypatch) -> Offline:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "files"))
    (tmp_path / "files").mkdir()
    return Offline(engine)


def test_examples_are_served_from_where_they_are(engine, offline) -> None:
    """Copies would be deleted as uploads are."""
    page.build(engine, 300)
    assert all(is_static_file(str(path)) for path in (ROOT / "examples").glob("*.wav"))


def test_what_telephones_record_is_read(offline, tmp_path: Path) -> None:
    import av

    path, sound = tmp_path / "memo.m4a", speech(2.0, 44_100)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
        frame.rate = 44_100
        file.mux([*stream.encode(frame), *stream.encode(None)])
    samples, rate = offline._sound(str(path))
    assert rate == 44_100 and samples.shape[1] == 1 and samples.dtype == np.float32 and abs(len(samples) / rate - 2) < 0.1
    (tmp_path / "list.m4a").write_text("#EXTM3U\n#EXTINF:10,\nmemo.m4a\n#EXT-X-ENDLIST\n")  # names another file
    with pytest.raises(gr.Error, match="The recording cannot be read; expected sound, for instance WAV"):
        offline.transcribe(str(tmp_path / "list.m4a"))


def test_nothing_is_cloned_in_vain(offline, tmp_path: Path, monkeypatch) -> None:
    ada = str(ROOT / "examples" / "voice_ada.wav")
    with pytest.raises(gr.Error, match="Consent is not given"):
        offline.clone(ada, "no", "hello")

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("no")

    with monkeypatch.context() as patch, pytest.raises(gr.Error, match="No"):
        patch.setattr(offline.engine.model, "speak_stream", refuse)
        offline.clone(ada, True, "hello")
    assert not list((tmp_path / "files").rglob("*.safetensors"))
    file, _, remarks = offline.clone(ada, True, "hello")
    assert "s of speech" in remarks
    path, again = page.kept(page.as_text(file), "../my *voice*")
    assert Path(path).read_bytes() == Path(file).read_bytes() and path == again and Path(path).name == "my voice.safetensors"
    Path(path).unlink()
    with pytest.raises(gr.Error, match="The voice file is not here any more: files are deleted"):
        offline.speak("hello", path)


def test_one_text_does_not_hold_up_everybody(offline, monkeypatch) -> None:
    monkeypatch.setattr("space.offline.LONGEST_SPEECH", 0.8)
    rate, said = offline.speak("a" * 400, None, "ada")
    assert len(said) == 0.8 * rate


def test_silence_is_said(offline, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    for ask in (offline.converse, offline.transcribe):
        with pytest.raises(gr.Error, match="The recording is silent; expected audible speech") as error:
            ask(str(tmp_path / "silence.wav"))
        assert error.value.duration == SHOWN
        with pytest.raises(gr.Error, match="record some and press Stop"):
            ask(None)
    assert "Nothing was heard" in page.as_table([])


def test_an_answer_is_shown_from_its_first_word_on() -> None:
    sound = np.arange(32_000, dtype=np.int16)
    rows = [{"start": 0.5, "end": 0.9, "who": "you", "text": "a"}, {"start": 1.0, "end": 1.5, "who": "MichiAI", "text": "<b>"}]
    (rate, shown), table = page.as_shown((16_000, sound), rows)
    assert rate == 16_000 and shown[0] == 0.9 * 16_000 and shown[-1] == sound[-1] and "&lt;b&gt;" in table
    assert len(page.as_shown((16_000, sound), rows[:1])[0][1]) == len(sound)


# -------------------------------------------------------------------- references, settings, guard


def test_references_are_checked() -> None:
    good = speech(5.0)
    assert check_reference(good[:, None], 16_000) == ["4.8 s of speech."]
    clipped = np.clip(good * 20, -1, 1)
    nan = good.copy()
    nan[100] = np.nan
    rare = np.concatenate([speech(1.0), np.zeros(32_000, np.float32)])
    for audio, message in (
        (speech(2.0), "2.0 s long; expected 3 to 30 s"),
        (speech(31.0), "31.0 s long; expected 3 to 30 s"),
        (np.zeros(64_000, np.float32), "silent; expected audible speech"),
        (rare, "only 1.0 s of audible speech"),
        (clipped, "% of the recording is clipped"),
        (nan, "NaN or infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            check_reference(audio[:, None].repeat(2, axis=1), 16_000)


def test_two_people_in_a_reference_are_remarked_on() -> None:
    ada, ben, cleo = (soundfile.read(ROOT / f"examples/voice_{name}.wav", dtype="float32")[0] for name in ("ada", "ben", "cleo"))
    for one in (ada, ben, cleo, np.concatenate([ada, ada[::-1]])):
        assert two_pitches(one, 16_000) is None
    low, high = two_pitches(np.concatenate([ada, ben]), 16_000)
    assert 70 < low < 100 and 130 < high < 170
    both = np.concatenate([ben, cleo])[:, None]
    with COMPILING:  # nobody waits for it
        assert len(check_reference(both, 16_000)) == 1
    assert check_reference(both, 16_000)[-1] == "It sounds like two people, at 83 and 187 Hz: the clone will be neither."


def test_settings_come_from_the_environment(monkeypatch) -> None:
    for name in (
        "MODEL_ID",
        "MAX_CONVERSATIONS",
        "MAX_SECONDS",
        "PORT",
        "HOST",
        "SPACE_ID",
        "UPLOAD_SECONDS",
    ):
        monkeypatch.delenv(name, raising=False)
    plain = Settings.from_environment()
    assert plain == Settings() and plain.model_id == str(ROOT)
    monkeypatch.setenv("SPACE_ID", "me/s")
    monkeypatch.setenv("MAX_SECONDS", "60")
    assert Settings.from_environment().host == "0.0.0.0" and Settings.from_environment().max_seconds == 60
    monkeypatch.setenv("MAX_CONVERSATIONS", "many")
    with pytest.raises(ValueError, match="MAX_CONVERSATIONS is 'many'; expected a number from 1 to 1000"):
        Settings.from_environment()


def test_the_page_is_freed_of_third_parties() -> None:
    page = (
        b'<head><link rel="preconnect" href="https://fonts.googleapis.com" /><meta property="og:image" content="https://x.y/z.png">'
        b'<script src="https://cdnjs.cloudflare.com/a.js" async></script><script>window.a = 1</script>'
        b'<link href="/theme.css"></head>'
    )

    async def app(scope, receive, send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", str(len(page)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": page[:50], "more_body": True})
        await send({"type": "http.response.body", "body": page[50:]})

    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(OwnOriginOnly(app)({"type": "http", "path": "/", "method": "GET"}, None, send))
    assert sent[1]["body"] == b'<head><script>window.a = 1</script><link href="/theme.css"></head>'
    headers = dict(sent[0]["headers"])
    assert (
        int(headers[b"content-length"]) == len(sent[1]["body"])
        and b"default-src 'self'" in headers[b"content-security-policy"]
    )
    assert not ELSEWHERE.search(b'<a href="https://github.com">a link that is not followed by itself</a>')
