"""The Space as programs see it: named endpoints, the control WebSocket, limits. With a tiny random model."""

import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from helpers import ROOT, speech  # noqa: E402
from space_server import running  # noqa: E402

REFERENCE, QUESTION = ROOT / "examples" / "voice_ada.wav", ROOT / "examples" / "question_meeting.wav"


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    with running(
        tmp_path_factory.mktemp("app") / "log.txt",
        ("-m", "michiai", "app", "--model", str(folder)),
        MAX_CONVERSATIONS="1",
        MAX_SECONDS="15",
        UPLOAD_SECONDS="10",
    ) as found:
        yield found


@pytest.fixture(scope="module")
def client(address) -> Client:
    return Client(address, verbose=False)


def wav(path: Path, audio: np.ndarray) -> object:
    soundfile.write(path, audio, 16_000, subtype="FLOAT" if len(audio) else "PCM_16")
    return handle_file(str(path))


@pytest.mark.parametrize("named, said", [
    ({"MODEL_ID": "/nowhere"}, "the checkpoint is '/nowhere'; expected"), ({"PORT": "x"}, "PORT is 'x'; expected")
])
def test_what_it_cannot_start_with_is_one_line(named: dict[str, str], said: str) -> None:
    ended = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=os.environ | named, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1 and said in ended.stderr and "Traceback" not in ended.stderr


# -------------------------------------------------------------------- the API


def test_the_code_on_the_page_works(address, client, tmp_path: Path, monkeypatch, capsys) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "space" / "api.md").read_text(), re.DOTALL)[1]
    (tmp_path / "reference.wav").write_bytes(REFERENCE.read_bytes())
    (tmp_path / "question.wav").write_bytes(QUESTION.read_bytes())
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(code.replace("http://127.0.0.1:7860", address), found)  # noqa: S102 - it is our own documentation
    rate, both = soundfile.read(found["both"])[::-1]
    answer, speech_ = soundfile.read(found["answer"])[0], soundfile.read(found["speech"])[0]
    assert rate == 16_000 and both.shape == (len(answer), 2) and len(speech_) > 1600
    assert Path(found["voice"]).suffix == ".safetensors" and "s of speech" in found["remarks"]
    assert all(set(row) == {"start", "end", "who", "text"} for row in found["transcript"])
    assert all(set(word) == {"word", "end"} for word in found["words"])
    assert Path(found["picture"]).stat().st_size > 5000
    assert capsys.readouterr().out.strip()


def test_only_the_four_endpoints_are_public(client) -> None:
    names = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(names) == {"/converse", "/speak", "/transcribe", "/clone"}


@pytest.mark.parametrize(
    ("endpoint", "make", "message"),
    [
        ("/converse", lambda p: (None, None, "", ""), "No recording was given"),
        ("/transcribe", lambda p: (wav(p / "l.wav", speech(61)),), "61 s long; expected at most 60 s"),
        ("/transcribe", lambda p: (wav(p / "e.wav", np.zeros(0)),), "is empty"),
        ("/transcribe", lambda p: (wav(p / "n.wav", np.full(16_000, np.nan)),), "NaN or infinite samples"),
        (
            "/converse",
            lambda p: (wav(p / "c.wav", speech(1)), None, "", "the train is red " * 200),
            "shorten the instructions or the context",
        ),
        ("/speak", lambda p: ("?!", None), "nothing to say; expected at least one word"),
        ("/speak", lambda p: ("word " * 100, None), "499 characters; expected at most 400"),
        ("/clone", lambda p: (wav(p / "s.wav", speech(2)), True, "hello"), "2.0 s long; expected 3 to 30 s"),
        ("/clone", lambda p: (wav(p / "z.wav", np.zeros(64_000)), True, "hello"), "silent; expected audible"),
        ("/clone", lambda p: (wav(p / "o.wav", speech(5)), False, "hello"), "Consent is not given"),
    ],
)  # fmt: skip
def test_bad_input_gives_a_sentence(client, tmp_path: Path, endpoint: str, make, message: str) -> None:
    with pytest.raises(AppError, match=message) as error:
        client.predict(*make(tmp_path), api_name=endpoint)
    assert "Traceback" not in str(error.value) and "/tmp" not in str(error.value)


def test_unreadable_files_give_a_sentence(client, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "voice.safetensors").write_text("this is no voice")
    with pytest.raises(AppError, match="cannot be read"):
        client.predict(handle_file(str(tmp_path / "text.wav")), api_name="/transcribe")
    with pytest.raises(AppError, match="cannot be read as a voice"):
        client.predict("hello", handle_file(str(tmp_path / "voice.safetensors")), api_name="/speak")


def test_uploads_are_limited_in_size(client, tmp_path: Path) -> None:
    big = tmp_path / "big.wav"
    soundfile.write(big, np.zeros((21 * 2**20) // 2, np.int16), 48_000)
    with pytest.raises(Exception, match="413|maximum allowed|too large|exceed"):
        client.predict(handle_file(str(big)), api_name="/transcribe")


@pytest.mark.parametrize("path", ["/live/voice", "/webrtc/offer", "/gradio_api/queue/join", "/gradio_api/call/speak", "/gradio_api/upload"])
def test_what_is_posted_is_limited_in_size(address, path: str) -> None:
    upload = path.endswith("upload")
    size, form = (22 if upload else 2) * 2**20, "multipart/form-data; boundary=b" if upload else "application/json"
    body = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n' if upload else b'{"file": "'
    body += b"A" * (size - len(body))
    with httpx.Client(base_url=address, headers={"Content-Type": form}, timeout=60) as web:
        for told, content in ((str(size), body), ("more than", iter([body[: size // 2], body[size // 2 :]]))):  # the latter in chunks
            answer = web.post(path, content=content)
            assert answer.status_code == 413 and "Traceback" not in answer.text
            most = 22_020_096 if upload else 1_048_576
            assert f"the request has {told}" in answer.text and f"expected at most {most}: give recordings" in answer.text, answer.text
    voice = {"file": "A" * 266_664}  # the largest that is looked at
    assert httpx.post(address + "/live/voice", json=voice).json()["problem"].startswith("The voice file cannot be read")


def test_uploads_are_deleted(address, client, tmp_path: Path) -> None:
    audio, text = speech(1.234), "one"
    client.predict(wav(tmp_path / "mine.wav", audio), api_name="/transcribe")
    folders = [path for path in Path("/tmp").glob("michiai-*") if list(path.rglob("mine.wav"))]
    assert folders, f"the upload is kept for the moment ({text})"
    deadline = time.monotonic() + 90
    while any(list(path.rglob("mine.wav")) for path in folders) and time.monotonic() < deadline:
        time.sleep(1)
    assert not any(list(path.rglob("mine.wav")) for path in folders)


def test_uploads_that_are_broken_off_are_deleted(address) -> None:
    def left() -> list[Path]:
        found = [*place.glob("tmp*"), *place.glob("michiai-*/tmp*")]
        return [path for path in found if path.is_file() and path.stat().st_size < 10_000 and mark in path.read_bytes()]

    place, mark, (host, port) = Path(tempfile.gettempdir()), secrets.token_bytes(64), address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000"
                     b'\r\n\r\n--b\r\nContent-Disposition: form-data; name="files"; filename="mine.wav"\r\n\r\n' + mark * 100)
        time.sleep(1)
    (found,) = left()
    assert found.parent.name.startswith("michiai-"), "it is gone with the process, in any case"
    deadline = time.monotonic() + 60
    while left() and time.monotonic() < deadline:
        time.sleep(1)
    assert not left()


# -------------------------------------------------------------------- the control WebSocket


def visit(address: str):
    return connect(address.replace("http", "ws") + "/live")


def start(control, **what: object) -> dict:
    control.send(json.dumps({"type": "start", **what}))
    return json.loads(control.recv(30))


def test_one_place_a_line_and_a_closed_tab(address) -> None:
    first, second, third = visit(address), visit(address), visit(address)
    ready = start(first)
    assert ready["type"] == "ready" and ready["rate"] == 16_000
    assert start(second) == {"type": "waiting", "ahead": 0}
    assert start(third) == {"type": "waiting", "ahead": 1}
    second.close()
    assert json.loads(third.recv(5)) == {"type": "waiting", "ahead": 0}
    began = time.monotonic()
    # no goodbye: the browser is killed, and its system closes the line
    first.socket.shutdown(socket.SHUT_RDWR)
    assert json.loads(third.recv(5))["type"] == "ready"
    print(f"the place was free after {time.monotonic() - began:.2f} s")
    third.close()


def test_bad_starts_give_a_sentence_and_free_the_place(address) -> None:
    for what, message in (
        ({"voice": {"file": "!!"}}, "The voice is not base64"),
        ({"voice": {"name": "nobody"}}, "The voice is 'nobody'; expected one of"),
        ({"context": "the train is red " * 500}, "expected at most 4000"),
        ({"context": "the train is red and late " * 100}, "shorten the instructions or the context"),
    ):
        with visit(address) as control:
            said = start(control, **what)
            assert said["type"] == "problem" and message in said["message"], said
    with visit(address) as control:
        assert start(control)["type"] == "ready"
        for text, message in (("", "The text is empty"), ("red " * 400, "That is too long: tell it about 50 words at once")):
            control.send(json.dumps({"type": "inject", "text": text}))
            said = json.loads(control.recv(10))
            assert said["type"] == "problem" and said["goes_on"] and message in said["message"], said
        control.send(json.dumps({"type": "inject", "text": "the train leaves at nine."}))
        assert json.loads(control.recv(10)) == {"type": "told", "text": "the train leaves at nine."}
        control.send(json.dumps({"type": "ping", "at": 5}))
        assert json.loads(control.recv(10)) == {"type": "pong", "at": 5}


def test_nonsense_ends_the_visit_and_nothing_else(address) -> None:
    for nonsense in ("[", "[]", '"x"', '{"type": "start", "voice": 7, "context": {"a": 1}}'):
        with visit(address) as control:
            control.send(nonsense)
    with visit(address) as control:
        assert start(control)["type"] == "ready"


def speak_over_websocket(address: str, key: str, seconds: float, control) -> list[dict]:
    """Talk through fastrtc's WebSocket for a while -> control messages."""
    import base64

    payload = base64.b64encode(bytes([255]) * 3840).decode()  # 80 ms of mu-law silence at 48 kHz
    with connect(address.replace("http", "ws") + "/websocket/offer") as sound:
        sound.send(json.dumps({"event": "start", "websocket_id": key}))
        began, messages, sent = time.monotonic(), [], 0
        while time.monotonic() - began < seconds:
            try:
                sound.send(json.dumps({"event": "media", "media": {"payload": payload}}))
            except ConnectionClosed:  # the conversation has ended
                break
            sent += 1
            time.sleep(max(0, began + sent * 0.08 - time.monotonic()))
            try:
                while True:
                    messages.append(json.loads(control.recv(0.001)))
            except (TimeoutError, EOFError):
                continue
            except ConnectionClosed:
                break
        try:
            while True:
                messages.append(json.loads(control.recv(0.5)))
        except (TimeoutError, ConnectionClosed):
            return messages


def test_the_time_limit_is_told_before_it_comes(address) -> None:
    with visit(address) as control:
        ready = start(control)
        assert ready["seconds"] == 15
        began = time.monotonic()
        messages = speak_over_websocket(address, ready["id"], 17, control)
        kinds = [m["type"] for m in messages]
        assert kinds.count("ending") == 1 and kinds.index("ending") < kinds.index("ended")
        assert next(m for m in messages if m["type"] == "ended")["why"] == "the time is up"
        assert time.monotonic() - began > 14
        frames = [m["index"] for m in messages if m["type"] == "frame"]
        assert frames == list(range(len(frames))) and len(frames) > 50


def test_sound_without_a_place_is_refused(address) -> None:
    import urllib.request

    body = json.dumps({"sdp": "", "type": "offer", "webrtc_id": "nobody"}).encode()
    request = urllib.request.Request(address + "/webrtc/offer", body, {"Content-Type": "application/json"})
    assert json.loads(urllib.request.urlopen(request, timeout=30).read())["meta"]["error"] == "no_place"
    with connect(address.replace("http", "ws") + "/websocket/offer") as sound:
        sound.send(json.dumps({"event": "start", "websocket_id": "nobody"}))
        with pytest.raises(Exception):  # noqa: B017 - closed, however
            for _ in range(200):
                sound.send(json.dumps({"event": "ping"}))
                sound.recv(10)
                time.sleep(0.05)


def test_those_without_a_place_do_not_keep_others_from_the_websocket(address) -> None:
    address_of_sound = address.replace("http", "ws") + "/websocket/offer"
    for _ in range(6):  # more than all places and those that are just closing
        with connect(address_of_sound) as sound:
            sound.send(json.dumps({"event": "start", "websocket_id": "nobody"}))
            with pytest.raises(ConnectionClosed):
                sound.recv(5)
    control = visit(address)
    key = start(control)["id"]
    with connect(address_of_sound) as sound, connect(address_of_sound) as second:
        for line in (sound, second):
            line.send(json.dumps({"event": "start", "websocket_id": key}))
            for number in range(10):
                line.send(json.dumps({"event": "start", "websocket_id": f"nobody {number}"}))
        assert json.loads(sound.recv(5))["event"] == "media"
        with pytest.raises(ConnectionClosed):  # one is enough
            second.recv(5)
        control.close()
        with pytest.raises(ConnectionClosed):  # with the conversation, though nothing is sent
            for _ in range(50):
                sound.recv(5)


def test_a_place_has_one_connection(address) -> None:
    from aiortc import RTCPeerConnection, RTCSessionDescription

    def offer(sdp: str, key: str, kind: str = "offer") -> dict:
        return httpx.post(address + "/webrtc/offer", json={"sdp": sdp, "type": kind, "webrtc_id": key}, timeout=30).json()

    async def story(key: str) -> None:
        for sdp, kind in (("", "nonsense"), ("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "offer")):
            assert "cannot be read" in offer(sdp, key, kind)["meta"]["error"]
        lines = [RTCPeerConnection() for _ in range(2)]
        for index, line in enumerate(lines):
            line.createDataChannel("text")  # without a track fastrtc does not count it
            await line.setLocalDescription(await line.createOffer())
            answer = await asyncio.to_thread(offer, line.localDescription.sdp, key)
            if index:
                assert answer["meta"]["error"] == "connection_already_exists"
            else:
                await line.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        for line in lines:
            await line.close()

    with visit(address) as control:
        asyncio.run(story(start(control)["id"]))


def test_half_a_character_and_a_long_ping_are_survived(address) -> None:
    with visit(address) as control:
        assert start(control)["type"] == "ready"
        control.send('{"type": "inject", "text": "nine \\ud83d"}')
        assert json.loads(control.recv(10)) == {"type": "told", "text": "nine \ud83d"}
        control.send(json.dumps({"type": "ping", "at": "x" * 1_000_000}))
        assert json.loads(control.recv(10)) == {"type": "pong", "at": None}


def test_conversations_leave_nothing_behind(address) -> None:
    """Twenty conversations after another: the process does not grow by more than some MiB."""
    sizes = []
    for _ in range(20):
        with visit(address) as control:
            ready = start(control)
            while ready["type"] != "ready":
                ready = json.loads(control.recv(10))
            speak_over_websocket(address, ready["id"], 0.5, control)
        sizes.append(server_memory(address))
    print("resident MiB:", [round(size) for size in sizes])
    assert sizes[-1] - sizes[4] < 15


def server_memory(address: str) -> float:
    """Resident MiB of the process that listens at the address."""
    port = int(address.rsplit(":", 1)[1])
    for status in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"PORT={port}".encode() in status.read_bytes().split(b"\0"):
                rows = (status.parent / "status").read_text().splitlines()
                return next(int(row.split()[1]) / 1024 for row in rows if row.startswith("VmRSS"))
        except OSError:
            continue
    raise AssertionError("no such server")
