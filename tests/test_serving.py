"""The server: conversations with it, what ends them, and OpenAI's own client with the committed model."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openai
import pytest
import soundfile
import torch
import websockets
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from michiai.__main__ import main
from michiai.serving.realtime import Conversation
from michiai.serving.server import Server, post

from helpers import ROOT
from realtime_events import append, message, update
from space_server import running

QUESTION, QUESTION_RATE = soundfile.read(ROOT / "examples" / "question.wav", dtype="<i2")


def test_too_long_instructions_are_refused_when_they_come(model) -> None:
    conversation = Conversation(model.batch(1), "michiai", {})
    with pytest.raises(ValueError, match="expected at most"):
        conversation.receive(update(instructions="word " * 2000))
    assert conversation.instructions == "" and conversation.session is None


def test_text_with_nothing_to_say_begins_nothing(model) -> None:
    conversation = Conversation(model.batch(1), "michiai", {})
    with pytest.raises(ValueError, match="can be spoken"):
        conversation.receive(message(content=[{"type": "input_text", "text": "你好"}]))
    assert conversation.session is None and conversation.batch.sessions == []
    conversation.receive(update(instructions="Your name is Nora."))
    conversation.receive(message(content=[{"type": "input_text", "text": "the train leaves at nine"}]))
    assert conversation.batch.sessions == [conversation.session]
    conversation.close()


def test_instructions_are_read_once(model, monkeypatch) -> None:
    conversation, begun = Conversation(model.batch(1), "michiai", {}), []
    session = type(model).session
    monkeypatch.setattr(type(model), "session", lambda self, **given: begun.append(given) or session(self, **given))
    conversation.receive(update(instructions="Your name is Tom."))
    conversation.receive(update(instructions="Your name is Nora."))
    conversation.receive(append(0.08))
    assert [given["instructions"] for given in begun] == ["Your name is Tom.", "Your name is Nora."]
    assert conversation.session is not None and conversation.prepared is None
    conversation.close()


def test_frames_of_two_clients_go_through_the_model_together(model) -> None:
    async def story() -> None:
        server = Server(model, "michiai", {}, sessions=2)
        clients = [Conversation(server.batch, "michiai", {}) for _ in range(2)]
        for client in clients:
            client.receive(append(0.17))
        for index in range(2):
            assert [frame.index for frame in await asyncio.gather(*map(server._frame, clients))] == [index, index]
        assert await asyncio.gather(*map(server._frame, clients)) == [None, None]
        clients[0].close()
        clients[1].receive(append(0.08))
        assert (await server._frame(clients[1])).index == 2
        clients[1].close()
        assert server.batch.sessions == []

    asyncio.run(story())


def test_what_cannot_be_read_is_said_and_the_session_goes_on(model) -> None:
    with TestClient(Server(model, "michiai", {}).app) as web, web.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        for message in ("nine", "[" * 20_000, '{"type": ["a"], "event_id": 1e999}'):
            socket.send_text(message)
            told = socket.receive_json()
            assert told["type"] == "error" and "expected one" in told["error"]["message"] and told["error"]["event_id"] is None
        socket.send_json(update())
        assert socket.receive_json()["type"] == "session.updated"


def test_an_error_of_the_model_is_logged_and_closes_the_conversation(model, monkeypatch, caplog) -> None:
    def broken(sessions: list) -> None:
        raise RuntimeError("not enough memory")

    server = Server(model, "michiai", {})
    monkeypatch.setattr(server.batch, "frames", broken)
    with TestClient(server.app) as web, web.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        socket.send_json(append(0.08))
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1011 and "not enough memory" in caplog.text


def test_who_sends_nothing_gives_its_place_back(model, monkeypatch) -> None:
    server = Server(model, "michiai", {}, sessions=1, idle=0.8)
    monkeypatch.setattr(Conversation, "events", lambda self, frame: [])
    with TestClient(server.app) as web, web.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        socket.send_json(append(0.08))  # after half a second silence begins to pass, which is not the client either
        told = socket.receive_json()
        assert told["error"]["code"] == "session_expired" and "nothing came from you for 0.8 s" in told["error"]["message"]
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 1000 and server.open == 0


def test_the_model_s_own_work_is_not_the_client_s_silence(model, monkeypatch) -> None:
    server = Server(model, "michiai", {}, idle=0.3)
    frames = server.batch.frames
    monkeypatch.setattr(server.batch, "frames", lambda sessions: time.sleep(0.1) or frames(sessions))
    monkeypatch.setattr(Conversation, "events", lambda self, frame: [])
    with TestClient(server.app) as web, web.websocket_connect("/v1/realtime") as socket:
        socket.receive_json()
        socket.send_json(append(0.4))  # five frames: half a second
        socket.send_text("nine")
        assert socket.receive_json()["error"]["code"] == "invalid_json"


def test_who_leaves_is_not_answered_any_more(model, monkeypatch) -> None:
    server, made = Server(model, "michiai", {}), []
    frames = server.batch.frames
    monkeypatch.setattr(server.batch, "frames", lambda sessions: made.append(time.sleep(0.02)) or frames(sessions))
    monkeypatch.setattr(Conversation, "events", lambda self, frame: [])  # a model that is silent: no message to it fails
    arriving = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": json.dumps(append(20))},
                {"type": "websocket.disconnect"}]

    async def receive() -> dict:
        return arriving.pop(0)

    async def send(message: dict) -> None:
        pass

    asyncio.run(server.realtime(WebSocket({"type": "websocket", "headers": []}, receive, send)))
    assert len(made) < 100, "of 250 frames"


def test_an_empty_key_is_no_key(model) -> None:
    with pytest.raises(ValueError, match="the key is empty; expected"):
        Server(model, "michiai", {}, key="")


def test_a_failed_send_means_that_the_client_has_gone() -> None:
    async def send_text(text: str) -> None:
        raise RuntimeError("Unexpected ASGI message 'websocket.send'")

    with pytest.raises(WebSocketDisconnect):
        asyncio.run(post(SimpleNamespace(send_text=send_text), [{}]))


def test_a_session_is_stopped(model) -> None:
    with model.session() as session:
        session.stop()  # it is silent: nothing happens
        list(zip(range(3), session.read("nine nine nine nine"), strict=False))
        session._queue = None
        assert session.speaking
        session.stop()
        (frame,) = session.push(torch.zeros(model.config.frame_size))
        assert not frame.speaking


def test_bad_folders_are_one_line(capsys, tmp_path) -> None:
    assert main(["serve", "--voices", str(tmp_path / "none")]) == 2
    assert "which is no folder" in capsys.readouterr().err


# ---------------------------------------------------------------- the committed model, in a process of its own


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with running(log, ("-m", "michiai", "serve", "--sessions", "1"), "/health", MICHIAI_API_KEY="open") as address:
        yield address.replace("http", "ws") + "/v1"


def client(server: str, key: str = "open") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, websocket_base_url=server)


def test_the_official_client_is_answered(server: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "realtime_client.py"), server]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"MICHIAI_API_KEY": "open"}, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "heard: what is three plus four" in done.stdout and "seven" in done.stdout
    sound, rate = soundfile.read(tmp_path / "realtime.wav")
    assert rate == 24_000 and len(sound) > 0.5 * rate and np.abs(sound).max() > 0.05


def test_one_who_is_told_something_knows_it_and_one_too_many_is_told_so(server: str) -> None:
    async def go() -> str:
        async with client(server).realtime.connect(model="michiai") as connection:
            assert (await connection.recv()).type == "session.created"
            async with client(server).realtime.connect(model="michiai") as other:
                refused = await other.recv()
                assert refused.type == "error" and refused.error.code == "session_limit"
                with pytest.raises(websockets.ConnectionClosed):
                    await other.recv()
            await connection.response.cancel()
            assert (await connection.recv()).error.code == "response_cancel_not_active"
            pcm = {"type": "audio/pcm", "rate": QUESTION_RATE}
            await connection.session.update(session={"type": "realtime", "audio": {"input": {"format": pcm}}})
            item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "The train leaves at nine."}]}
            await connection.conversation.item.create(item=item)
            for start in range(0, len(QUESTION), 1000):  # as a microphone gives it
                await connection.input_audio_buffer.append(audio=base64.b64encode(QUESTION[start : start + 1000].tobytes()).decode())
            kinds = []
            async for event in connection:
                kinds.append(event.type)
                if event.type == "response.done":
                    assert {"session.updated", "conversation.item.added"} <= set(kinds) and "error" not in kinds
                    return event.response.output[0].content[0].transcript
        return ""

    assert "seven" in asyncio.run(asyncio.wait_for(go(), 120))


def test_who_has_no_key_is_not_let_in(server: str) -> None:
    async def go() -> None:
        with pytest.raises(websockets.InvalidStatus, match="403"):
            async with client(server, "wrong").realtime.connect(model="michiai"):
                pass

    asyncio.run(go())
