"""The server: events in the protocol's order, every misuse told, and OpenAI's own client in conversation with the committed model."""

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
from michiai.serving.events import RealtimeError, error_event
from michiai.serving.realtime import RATE, Conversation
from michiai.serving.server import Server, post
from michiai.session_michiai import Frame

from helpers import ROOT
from space_server import running

SIZE = 1280
QUESTION, QUESTION_RATE = soundfile.read(ROOT / "examples" / "question.wav", dtype="<i2")


class Played:
    """A session whose frames are given: (own text, heard text, speaking, turn probability)."""

    def __init__(self, frames: list[tuple[str, str, bool, float]]) -> None:
        self.given, self.index, self.pending, self.told, self.stopped = frames, 0, 0, [], 0

    def hear(self, pcm: np.ndarray, sampling_rate: int) -> None:
        self.pending += len(pcm) * 16_000 // sampling_rate

    @property
    def frame_is_due(self) -> bool:
        return self.pending >= SIZE

    def frames(self) -> list[Frame]:
        self.pending -= SIZE
        text, heard, speaking, finished = self.given[self.index] if self.index < len(self.given) else ("", "", False, 0.0)
        self.index += 1
        return [Frame(self.index - 1, torch.full((SIZE,), 0.5 if speaking else 0.0), text, heard, speaking, finished, 0.0)]

    def inject(self, text: str) -> None:
        self.told.append(text)

    def stop(self) -> None:
        self.stopped += 1

    def close(self) -> None:
        pass


def played(frames: list[tuple[str, str, bool, float]]) -> Conversation:
    config = SimpleNamespace(sampling_rate=16_000, frame_rate=12.5, listen_config=SimpleNamespace(delay=3))
    model = SimpleNamespace(config=config, session=lambda **_: Played(frames))
    return Conversation(SimpleNamespace(model=model, add=lambda session: None), "michiai", {"ada": None})


def next_events(conversation: Conversation) -> list[dict] | None:
    """Of the next frame, if its sound has come."""
    return conversation.events(*conversation.session.frames()) if conversation.listen() else None


def append(seconds: float, rate: int = RATE) -> dict:
    sound = np.zeros(round(seconds * rate), "<i2").tobytes()
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()}


def events_of(conversation: Conversation, seconds: float) -> list[dict]:
    assert conversation.receive(append(seconds)) == []
    events = []
    while (new := next_events(conversation)) is not None:
        events += new
    return events


ASKED = [("", "", False, 0.0)] * 4 + [("", " how are", False, 0.0), ("", " you", False, 0.9), ("", "", False, 0.9)]
ANSWERED = [("", "", True, 0.9)] * 3 + [(" fine", "", True, 0.9), (" thanks", "", True, 0.0)] + [("", "", False, 0.0)] * 4


def test_a_question_and_its_answer() -> None:
    events = events_of(played(ASKED + ANSWERED), 16 * 0.08)
    kinds = [event["type"].removeprefix("conversation.item.") for event in events]
    transcription, response = "input_audio_transcription", "response"
    assert kinds == [
        "input_audio_buffer.speech_started", f"{transcription}.delta", f"{transcription}.delta",
        "input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "added", "done",
        f"{response}.created", f"{response}.output_item.added", "added", f"{response}.content_part.added",
        *[f"{response}.output_audio.delta"] * 3, f"{transcription}.completed",
        *[f"{response}.output_audio.delta", f"{response}.output_audio_transcript.delta"] * 2,
        *[f"{response}.output_audio.delta"] * 3,
        f"{response}.output_audio.done", f"{response}.output_audio_transcript.done", f"{response}.content_part.done",
        f"{response}.output_item.done", "done", f"{response}.done",
    ]
    by = {event["type"]: event for event in events}
    assert by["conversation.item.input_audio_transcription.completed"]["transcript"] == "how are you"
    assert by["input_audio_buffer.speech_started"]["audio_start_ms"] == 2 * 80  # known three frames after it was said
    assert by["response.output_audio_transcript.done"]["transcript"] == "fine thanks"
    done = by["response.done"]["response"]
    assert done["status"] == "completed" and done["output"][0]["content"] == [{"type": "output_audio", "transcript": "fine thanks"}]
    user = by["input_audio_buffer.committed"]["item_id"]
    assert [e["previous_item_id"] for e in events if e["type"] == "conversation.item.done"] == [None, user]
    sound = b"".join(base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta")
    assert abs(len(sound) // 2 - 8 * 0.08 * RATE) < 60 and np.frombuffer(sound, "<i2").max() > 16_000


def test_words_heard_during_an_answer_are_an_item_too() -> None:
    frames = [(" well", "", True, 0.0)] + [("", " stop", True, 0.0)] + [("", "", True, 0.0)] * 20 + [("", "", False, 0.0)] * 4
    events = events_of(played(frames), 26 * 0.08)
    kinds = [event["type"] for event in events]
    started, stopped = (kinds.index(f"input_audio_buffer.speech_{what}") for what in ("started", "stopped"))
    assert kinds.index("response.created") < started < stopped < kinds.index("response.done")
    assert kinds.count("response.created") == kinds.count("response.done") == 1


def test_an_answer_that_follows_at_once_is_another() -> None:
    frames = [(" one", "", True, 0.0), ("", "", False, 0.0), (" two", "", True, 0.0), ("", "", True, 0.0)] + [("", "", False, 0.0)] * 4
    events = events_of(played(frames), 8 * 0.08)
    assert [e["transcript"] for e in events if e["type"] == "response.output_audio_transcript.done"] == ["one", "two"]


def test_a_client_stops_an_answer() -> None:
    conversation = played([(" well", "", True, 0.0)] * 3 + [("", "", False, 0.0)] * 4)
    with pytest.raises(RealtimeError, match="the model is silent"):
        conversation.receive({"type": "response.cancel"})
    events_of(conversation, 2 * 0.08)
    assert conversation.receive({"type": "response.cancel"}) == [] and conversation.session.stopped == 1
    done = events_of(conversation, 5 * 0.08)[-1]
    assert done["type"] == "response.done" and done["response"]["status"] == "cancelled"


def test_silence_passes_while_something_may_be_said() -> None:
    conversation = played([])
    assert not conversation.expects_time
    events_of(conversation, 0.16)
    assert conversation.expects_time
    conversation.silence(9.6)
    while next_events(conversation) is not None:
        pass
    assert conversation.expects_time
    conversation.silence(0.8)
    while next_events(conversation) is not None:
        pass
    assert not conversation.expects_time


def update(**session: object) -> dict:
    return {"type": "session.update", "session": session}


def message(**item: object) -> dict:
    return {"type": "conversation.item.create", "item": {"type": "message", "role": "system"} | item}


BAD = {
    "no object": ([], "unknown_event", "type is None"),
    "type": ({"type": ["a"]}, "unknown_event", "type is ['a']"),
    "unknown": ({"type": "response.sing"}, "unknown_event", "'response.sing'; expected one of session.update"),
    "session": (update() | {"session": 3}, "invalid_type", "session is 3; expected an object"),
    "audio": (update(audio=[1]), "invalid_type", "session.audio is"),
    "instructions": (update(instructions=3), "invalid_type", "instructions is 3"),
    "voice": (update(audio={"output": {"voice": "alloy"}}), "invalid_value", "'alloy'; expected one of default, ada"),
    "format": (update(audio={"input": {"format": {"type": "audio/pcmu"}}}), "unsupported", "expected audio/pcm"),
    "rate": (update(audio={"output": {"format": {"type": "audio/pcm", "rate": 0}}}), "invalid_value", "rate is 0"),
    "odd rate": (update(audio={"input": {"format": {"rate": 767_999}}}), "invalid_value", "expected a multiple of 25 from 8000 to 48000"),
    "endless rate": (update(audio={"input": {"format": {"rate": float("inf")}}}), "invalid_value", "rate is inf"),
    "turns": (update(audio={"input": {"turn_detection": None}}), "unsupported", "turn_detection is null"),
    "text only": (update(output_modalities=["text"]), "unsupported", "expected ['audio']"),
    "tools": (update(tools=[{"name": "a"}]), "unsupported", "tools"),
    "not base64": ({"type": "input_audio_buffer.append", "audio": "%"}, "invalid_value", "not base64"),
    "no sound": ({"type": "input_audio_buffer.append", "audio": 3}, "invalid_value", "not base64"),
    "nothing": ({"type": "input_audio_buffer.append"}, "invalid_value", "not base64"),
    "odd bytes": ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value", "3 bytes"),
    "sound as item": (message(content=[{"type": "input_audio", "audio": ""}]), "invalid_value", "input_text"),
    "empty text": (message(content=[{"type": "input_text", "text": " "}]), "invalid_value", "the text is empty"),
    "no text": (message(content=[{"type": "input_text", "text": None}]), "invalid_type", "item.content[0].text is None; expected text"),
    "item's id": (message(id=3, content=[{"type": "input_text", "text": "nine"}]), "invalid_type", "item.id is 3; expected text"),
    "long text": (update(instructions="a" * 20_001), "invalid_value", "instructions has 20001 characters; expected at most 20000"),
    "long item": (message(content=[{"type": "input_text", "text": "a" * 11_000}] * 2), "invalid_value", "content has 22001 characters"),
    "a tool's item": (message(type="function_call_output"), "unsupported", "type message"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_honoured_is_said_and_loses_nothing(name: str) -> None:
    event, code, words = BAD[name]
    conversation = played(ASKED + ANSWERED)
    before = conversation.described()
    with pytest.raises(RealtimeError) as error:
        conversation.receive(event)
    told = error_event(error.value, "event_1")["error"]
    assert told["code"] == code and words in told["message"] and told["event_id"] == "event_1"
    assert conversation.described() == before and conversation.session is None
    assert events_of(conversation, 16 * 0.08)[-1]["type"] == "response.done"


def test_what_stands_before_a_conversation_cannot_change_in_it() -> None:
    conversation = played(ASKED)
    output = {"voice": {"id": "ada"}, "format": {"type": "audio/pcm", "rate": 16_000}}
    wanted = update(instructions="Your name is Nora.", audio={"output": output})
    (updated,) = conversation.receive(wanted)
    session = updated["session"]
    assert session["instructions"] == "Your name is Nora." and session["audio"]["output"]["voice"] == "ada"
    assert session["audio"]["output"]["format"]["rate"] == 16_000 and session["audio"]["input"]["format"]["rate"] == RATE
    events_of(conversation, 0.16)
    assert conversation.receive(wanted)[0]["type"] == "session.updated"
    with pytest.raises(RealtimeError, match="which has begun"):
        conversation.receive(update(instructions="Your name is Tom."))
    added, done = conversation.receive(message(content=[{"type": "input_text", "text": "the train leaves at nine"}]))
    assert added["type"] == "conversation.item.added" and done["item"]["status"] == "completed"
    assert conversation.session.told == ["the train leaves at nine"]


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
