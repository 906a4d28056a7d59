"""The Space's visitors: places and a line, voices of the page, relays."""

import asyncio
import base64
from pathlib import Path

import pytest
from safetensors.torch import save_file

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

from fastapi import FastAPI  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402

from space import live  # noqa: E402
from space.places import Places  # noqa: E402
from space.settings import Settings  # noqa: E402

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


# -------------------------------------------------------------------- what the page asks for


def test_a_voice_of_the_page(engine, tmp_path: Path) -> None:
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


def test_a_wrong_voice_file_is_refused_before_it_is_needed(engine, tmp_path: Path) -> None:
    app = FastAPI()
    live.Live(engine, Settings()).mount(app)

    def answer(data: bytes) -> dict:
        return TestClient(app).post("/live/voice", json={"file": base64.b64encode(data).decode()}).json()

    engine.voices["ben"].save(tmp_path / "v.safetensors")
    assert answer((tmp_path / "v.safetensors").read_bytes()) == {}
    save_file({"latents": engine.voices["ben"].latents}, tmp_path / "v.safetensors")
    said = {"problem": "The voice file is not a voice of version 1; expected a file written by Voice.save."}
    assert answer((tmp_path / "v.safetensors").read_bytes()) == said
    assert "cannot be read as a voice" in answer(b"x" * 300)["problem"]


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
