"""The server: a WebSocket per conversation at /v1/realtime, one thread for the model.

Sound is computed as it comes. For a client that stops sending, silence passes by the clock as long as something may still be said.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from michiai.session_michiai import Frame
from michiai.voice_michiai import Voice

from .events import RealtimeError, error_event, new_id
from .realtime import Conversation

logger = logging.getLogger(__name__)

GAP = 0.5  # seconds without sound after which the client is taken to have stopped sending
TICK = 0.08  # seconds of silence at a time from then on
FULL, BROKEN, OVER = 1013, 1011, 1000  # why a WebSocket closes: try again later; an error of the server; the conversation is over


class Server:
    """All conversations of this process.

    Args:
        model: a MichiAIModel, warmed up.
        name: as clients are told it.
        voices: by the names that clients may ask for.
        sessions: how many may converse at once.
        key: that clients must send as `Authorization: Bearer KEY`; None: anyone may connect.
        idle: seconds without a word from a client after which its conversation ends: others may be waiting for the place.
    """

    def __init__(
        self, model: Any, name: str, voices: dict[str, Voice], sessions: int = 4, key: str | None = None, idle: float = 300
    ) -> None:
        if key == "":  # a variable that is set to nothing, say: it would let in those who send no key, and nobody else
            raise ValueError("the key is empty; expected some characters, or none at all (no MICHIAI_API_KEY), which lets anyone in")
        self.model, self.name, self.voices, self.sessions, self.key, self.idle, self.open = model, name, voices, sessions, key, idle, 0
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.batch = model.batch(sessions)
        self.asked: deque[tuple[Conversation, Future]] = deque()  # for their next frames
        self.app = Starlette(routes=[
            Route("/health", self.health), Route("/v1/models", self.models), WebSocketRoute("/v1/realtime", self.realtime),
        ])

    async def health(self, request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "sessions": self.open, "limit": self.sessions})

    async def models(self, request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "michiai"}]})

    async def realtime(self, socket: WebSocket) -> None:
        """One conversation, from its first to its last event."""
        given = socket.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key is not None and not secrets.compare_digest(given.encode(), self.key.encode()):
            await socket.close()  # before it is accepted: 403
            return
        await socket.accept()
        if self.open >= self.sessions:
            busy = RealtimeError("session_limit", f"{self.open} conversations are going on, as many as may be; try again later")
            await post(socket, [error_event(busy)])
            await socket.close(FULL)
            return
        self.open += 1
        conversation, inbox = Conversation(self.batch, self.name, self.voices), asyncio.Queue(maxsize=8)
        reader = asyncio.create_task(read(socket, inbox))
        try:
            await post(socket, [conversation.opened()])
            await self._converse(socket, conversation, inbox)
        except WebSocketDisconnect:  # it left while it was being told something
            pass
        except Exception:
            logger.exception("a conversation broke")
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it may have left
                await socket.close(BROKEN)
        finally:
            reader.cancel()
            self.open -= 1
            await self._run(conversation.close)

    async def _converse(self, socket: WebSocket, conversation: Conversation, inbox: asyncio.Queue) -> None:
        last, patience, left = time.monotonic(), GAP, self.idle
        while True:
            wait = min(patience, left) if conversation.expects_time else left
            try:
                text = await asyncio.wait_for(inbox.get(), wait)
            except TimeoutError:
                if wait == left:
                    ended = f"nothing came from you for {self.idle:g} s, so the conversation is over; connect again"
                    await post(socket, [error_event(RealtimeError("session_expired", ended))])
                    await socket.close(OVER)
                    return
                now, left = time.monotonic(), left - wait  # of waiting alone: the model's own work is not the client's silence
                conversation.silence(now - last)
                last, patience = now, TICK
            else:
                left = self.idle
                if text is None:
                    return
                if await self._answer(socket, conversation, text) == "input_audio_buffer.append":
                    last, patience = time.monotonic(), GAP
            while (frame := await self._frame(conversation)) is not None:
                if socket.client_state is WebSocketState.DISCONNECTED:  # minutes of sound may be waiting, which nobody wants answered
                    return
                await post(socket, conversation.events(frame))

    async def _frame(self, conversation: Conversation) -> Frame | None:
        """The next frame, if its sound has come."""
        answer: Future = Future()
        answer.set_running_or_notify_cancel()  # should it leave meanwhile, the others go on
        self.asked.append((conversation, answer))
        self.worker.submit(self._go_on)
        return await asyncio.wrap_future(answer)

    def _go_on(self) -> None:
        """A frame of all conversations that asked for one while the model was busy; in the worker."""
        asked = [self.asked.popleft() for _ in range(len(self.asked))]
        try:
            due = [conversation for conversation, _ in asked if conversation.listen()]
            frames = dict(zip(due, self.batch.frames([conversation.session for conversation in due]), strict=True))
            for conversation, answer in asked:
                answer.set_result(*frames.get(conversation, [None]))
        except Exception as error:
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)

    async def _answer(self, socket: WebSocket, conversation: Conversation, text: str) -> str | None:
        """Answer an event of the client; its type."""
        event: Any = None
        try:
            event = json.loads(text)
            events = await self._run(conversation.receive, event)
        except (json.JSONDecodeError, RecursionError) as error:  # the latter: nested a thousand times
            events = [error_event(RealtimeError("invalid_json", f"the message cannot be read ({error}); expected one JSON object"))]
        except ValueError as error:
            events = [error_event(error, event.get("event_id") if isinstance(event, dict) else None)]
        await post(socket, events)
        return event.get("type") if isinstance(event, dict) else None

    async def _run(self, work: Callable, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.worker, work, *arguments)


async def read(socket: WebSocket, inbox: asyncio.Queue) -> None:
    """Messages of the client into the inbox; None when it has gone. While the inbox is full the client waits."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                break
            await inbox.put(message.get("text") or "")
    await inbox.put(None)


async def post(socket: WebSocket, events: list[dict]) -> None:
    """Tell the client these events; raises WebSocketDisconnect where it has gone."""
    for event in events:
        text = json.dumps({"event_id": new_id("event"), **event})
        try:
            await socket.send_text(text)
        except RuntimeError as error:  # how Starlette and uvicorn say that the connection is closed
            raise WebSocketDisconnect from error
