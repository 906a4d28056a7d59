"""Live conversations over FastRTC: a control WebSocket per visitor, and sound over WebRTC or a WebSocket.

The control WebSocket `/live` is a visitor's presence: while it is open the visitor waits or talks, and when
it closes the place is free. The page sends `start` (instructions, context, voice), then `inject` and `ping`;
it is told `waiting` (how many are in front), `ready` (the conversation's id, with which it opens the sound),
`frame` after `frame`, `told` (what was injected), `ending` 10 s before the limit, `ended` and `problem`.
A voice file is sent to `/live/voice` when it is chosen, so that a wrong one is refused before anybody waits for a place.
"""

import asyncio
import audioop
import base64
import contextlib
import json
import logging
import os
import secrets
import time
from typing import Any

import numpy as np
from fastapi import FastAPI, WebSocket
from fastrtc import AsyncStreamHandler, CloseStream, Stream, get_cloudflare_turn_credentials_async
from fastrtc.stream import Body
from fastrtc.utils import current_context
from starlette.websockets import WebSocketDisconnect

from .conversation import Conversation
from .engine import Engine
from .places import Places
from .settings import Settings

logger = logging.getLogger(__name__)

LINE_RATE = 48_000  # of what comes in: fastrtc then gives it on in pieces of 20 ms
WARNING = 10.0  # seconds before the end at which a visitor is told
LONGEST_TEXT = 4_000  # characters of instructions, context or injected text
TOO_LONG, WORDS_AT_ONCE = "half of the text window", 50  # what the session says of a text, and how many words about fit
TURN_SECONDS = 1200  # that a relay's credentials are good for; half of it they are given to new visitors


class Live:
    """All conversations of this process.

    Args:
        engine: the model.
        settings: limits.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine, self.settings = engine, settings
        self.places = Places(settings.max_conversations)
        self.conversations: dict[str, Conversation] = {}
        self._relays: tuple[float, dict] = (float("-inf"), {})  # when they were fetched
        self.stream = Stream(
            Line(self),
            modality="audio",
            mode="send-receive",
            concurrency_limit=4 * settings.max_conversations,
            rtc_configuration=self.ice_servers,
            server_rtc_configuration={"iceServers": []},
            verbose=False,
        )  # the limit that counts is `places`; this one also holds connections that are just closing

    def mount(self, app: FastAPI) -> None:
        """Add the routes; fastrtc's own `mount` would also answer telephones."""
        app.websocket("/live")(self.visit)
        app.get("/live/ice")(self.ice_servers)
        app.post("/live/voice")(self.check_voice)
        app.post("/webrtc/offer")(self.offer)
        app.websocket("/websocket/offer")(self.sound)

    async def ice_servers(self) -> dict[str, Any]:
        """For the browser; on Spaces relays with short-lived credentials, which the server then uses too."""
        if not os.environ.get("SPACE_ID"):
            return {"iceServers": []}
        fetched, found = self._relays
        if time.monotonic() - fetched < TURN_SECONDS / 2:
            return found
        try:
            found = await get_cloudflare_turn_credentials_async(ttl=TURN_SECONDS)
        except Exception as error:  # no token, no network: host candidates and then the WebSocket are left
            logger.warning("no TURN credentials (%s); set the secret HF_TOKEN", error)
            return {"iceServers": []}
        self.stream.server_rtc_configuration = self.stream.convert_to_aiortc_format(found)
        self._relays = (time.monotonic(), found)
        return found

    def check_voice(self, voice: dict) -> dict[str, str]:
        """`voice` as in `start` -> {"problem": why it cannot be used}, or {}."""
        try:
            self.engine.voice_of_page(voice)
        except ValueError as error:
            return {"problem": plain(error)}
        return {}

    async def offer(self, body: Body) -> Any:
        """WebRTC signalling, for those who have a place: one connection each."""
        why = None
        if body.webrtc_id not in self.conversations:
            why = "no_place"
        elif body.type != "ice-candidate" and body.webrtc_id in self.stream.pcs:  # fastrtc would forget the one before, and leave it open
            why = "connection_already_exists"
        if why:
            return {"status": "failed", "meta": {"error": why}}
        try:
            return await self.stream.offer(body)
        except Exception as error:  # whatever aiortc thinks of a text that is no offer
            logger.warning("an offer of WebRTC is refused: %r", error)
            await self._hang_up(body.webrtc_id)
            return {"status": "failed", "meta": {"error": "the offer cannot be read; expected SDP with a track of sound"}}

    async def sound(self, socket: WebSocket) -> None:
        """Sound over a WebSocket, where WebRTC does not connect: mu-law in base64, in fastrtc's messages; for those who have a place, once.

        fastrtc's own end of it takes any names, any number of them, remembers them all, and then refuses everybody.
        """
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, ValueError, KeyError, TypeError):  # gone, or not speaking our language
            conversation = self.conversations[(await socket.receive_json())["websocket_id"]]
            if not conversation.on_websocket:
                conversation.on_websocket = True
                await _talk(socket, conversation)
        with contextlib.suppress(RuntimeError):  # closed already
            await socket.close()

    # ---------------------------------------------------------------- one visitor

    async def visit(self, socket: WebSocket) -> None:
        """From opening the control WebSocket to its end."""
        await socket.accept()
        outbox: asyncio.Queue = asyncio.Queue(maxsize=250)  # 20 s of frames: who does not take them has gone
        tasks = [asyncio.create_task(_post(socket, outbox))]
        conversation: list[Conversation] = []

        def send(message: dict) -> None:
            with contextlib.suppress(asyncio.QueueFull):
                outbox.put_nowait(message)

        try:
            while True:
                message = await socket.receive_json()
                kind = message.get("type") if isinstance(message, dict) else None
                if kind == "start" and len(tasks) == 1:
                    tasks.append(asyncio.create_task(self._attend(message, send, conversation)))
                elif kind == "ping":
                    at = message.get("at")
                    send({"type": "pong", "at": at if isinstance(at, int | float) else None})  # not a megabyte, 250 times over
                elif kind == "inject" and conversation:
                    await self._inject(conversation[0], message.get("text"), send)
        except (WebSocketDisconnect, RuntimeError, ValueError, KeyError):
            pass  # gone, or not speaking our language
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _attend(self, start: dict, send: Any, holder: list[Conversation]) -> None:
        """Wait for a place, converse, say why it ended."""
        try:
            async with self.places.place(lambda ahead: send({"type": "waiting", "ahead": ahead})):
                why = await self._converse(start, send, holder)
            send({"type": "ended", "why": why})
        except ValueError as error:
            send({"type": "problem", "message": plain(error)})
        except Exception:
            logger.exception("a conversation broke")
            send({"type": "problem", "message": "Something broke on our side. Please press Talk again."})

    async def _converse(self, start: dict, send: Any, holder: list[Conversation]) -> str:
        key, loop = secrets.token_urlsafe(16), asyncio.get_running_loop()
        session = await self._session(start)
        conversation = Conversation(self.engine, session, send)
        self.conversations[key] = conversation
        holder.append(conversation)
        limit = self.settings.max_seconds
        alarm = loop.call_later(limit - WARNING, send, {"type": "ending", "seconds": WARNING})
        work = asyncio.create_task(conversation.run())
        over = asyncio.create_task(conversation.over.wait())
        try:
            send(
                {
                    "type": "ready",
                    "id": key,
                    "rate": self.engine.rate,
                    "line_rate": LINE_RATE,
                    "seconds": limit,
                }
            )
            done, _ = await asyncio.wait({work, over}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if work in done:
                return work.result()
            return "the connection closed" if done else "the time is up"
        finally:
            alarm.cancel()
            work.cancel()
            over.cancel()
            holder.clear()
            del self.conversations[key]
            await asyncio.shield(asyncio.gather(self._hang_up(key), conversation.close()))

    async def _session(self, start: dict) -> int:
        texts = {name: _text(start.get(name), name) for name in ("instructions", "context")}
        voice = self.engine.voice_of_page(start.get("voice"))
        latents = None if voice is None else voice.latents.numpy()
        return await self.engine.worker.open(latents, seed=secrets.randbits(31), **texts)

    async def _inject(self, conversation: Conversation, text: Any, send: Any) -> None:
        try:
            await conversation.inject(_text(text, "text", empty=False))
            send({"type": "told", "text": text})
        except ValueError as error:
            long = f"That is too long: tell it about {WORDS_AT_ONCE} words at once, or less."
            send({"type": "problem", "message": long if TOO_LONG in str(error) else plain(error), "goes_on": True})

    async def _hang_up(self, key: str) -> None:
        connection = self.stream.pcs.get(key)
        if connection is not None:
            await connection.close()  # fastrtc then forgets it


async def _post(socket: WebSocket, outbox: asyncio.Queue) -> None:
    while True:
        await socket.send_text(json.dumps(await outbox.get()))  # `send_json` fails at half a surrogate, which a visitor's text may hold


async def _talk(socket: WebSocket, conversation: Conversation) -> None:
    """Both ways until either is over, and with it the conversation."""
    player = asyncio.create_task(_play(socket, conversation))
    try:
        while True:
            message = await socket.receive_json()
            if message["event"] == "media":
                pcm = audioop.ulaw2lin(base64.b64decode(message["media"]["payload"]), 2)
                conversation.hear(LINE_RATE, np.frombuffer(pcm, np.int16))
    finally:
        conversation.over.set()
        player.cancel()
        await asyncio.gather(player, return_exceptions=True)


async def _play(socket: WebSocket, conversation: Conversation) -> None:
    while not conversation.over.is_set():
        pcm = (await conversation.sound(4)).clip(-1, 1) * 32767
        payload = base64.b64encode(audioop.lin2ulaw(pcm.astype(np.int16).tobytes(), 2)).decode()
        await socket.send_json({"event": "media", "media": {"payload": payload}})
    await socket.close()


def _text(value: Any, name: str, empty: bool = True) -> str:
    text = str(value or "").strip()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{name} has {len(text)} characters; expected at most {LONGEST_TEXT}")
    if not text and not empty:
        raise ValueError("the text is empty; expected a sentence, for instance: the train to paris leaves at nine")
    return text


def plain(error: Exception) -> str:
    """An error's message as a sentence on the page."""
    text = " ".join(str(error).split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


class Line(AsyncStreamHandler):
    """One visitor's sound over WebRTC: fastrtc calls this, the conversation does the rest."""

    def __init__(self, live: Live) -> None:
        super().__init__("mono", output_sample_rate=live.engine.rate, input_sample_rate=LINE_RATE)
        self.live = live
        self.conversation: Conversation | None = None
        self.refused = False

    def copy(self) -> "Line":
        return Line(self.live)

    async def start_up(self) -> None:
        context = current_context.get()
        self.conversation = self.live.conversations.get(context.webrtc_id if context else "")
        self.refused = self.conversation is None

    async def receive(self, frame: tuple[int, Any]) -> None:
        if self.conversation is not None:
            self.conversation.hear(frame[0], frame[1].reshape(-1))

    async def emit(self) -> Any:
        if self.conversation is None:
            await asyncio.sleep(0.02)
            return CloseStream("this conversation is not open") if self.refused else None
        sound = await self.conversation.sound()
        return self.live.engine.rate, sound[None].repeat(2, axis=0), "stereo"  # mono would lose 3 dB

    async def shutdown(self) -> None:
        if self.conversation is not None:
            self.conversation.over.set()
            self.conversation = None
