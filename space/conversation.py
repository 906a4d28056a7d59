"""A live conversation: sound comes when it comes, the model runs in its process, sound leaves by the clock."""

import asyncio
import contextlib
import time
from collections import deque
from typing import Any

import numpy as np

from .engine import Engine
from .playout import PIECE_SECONDS, Playout

LEAD_IN = 0.005  # seconds of silence before the first sound: the resampler looks ahead by less than that
USER_SPEAKS = 0.01  # rms: -40 dB of full scale
RECENT = 8  # frames of user audio that tell whether a turn's end was an interruption
CONNECT_WITHIN = 30.0  # seconds until the first sound
BROKEN = 10.0  # seconds without any sound, not even silence, that end a conversation
BEHIND = 0.5  # seconds of user audio that may wait for the model
STATISTICS = 125  # frames, 10 s


class Conversation:
    """Owns a session. All methods are called in the event loop.

    Args:
        engine: the model.
        session: the number of a fresh one.
        send: called with every message for the page.
    """

    def __init__(self, engine: Engine, session: int, send: Any) -> None:
        self.engine, self.session, self.send = engine, session, send
        self.playout = Playout(engine.rate)
        self.over = asyncio.Event()
        self.connected = self.on_websocket = False
        self.skipped = 0  # pieces of user audio that the model was too slow for
        self._heard: deque[np.ndarray] = deque()
        self._waiting, self._rate = 0, 0  # samples in `_heard`, and how many make a second
        self._arrived = asyncio.Event()
        self._levels: deque[float] = deque(maxlen=RECENT)
        self._spent: deque[float] = deque(maxlen=STATISTICS)
        self._speaking = False
        self._start: float | None = None  # of the outgoing clock
        self._sent = 0  # pieces since then

    # ---------------------------------------------------------------- in

    def hear(self, rate: int, pcm: np.ndarray) -> None:
        """User audio as it arrives, int16 [N]."""
        if not len(pcm):  # would be kept, and never be a frame
            return
        self.connected, self._rate = True, rate
        self._heard.append(pcm)
        self._waiting += len(pcm)
        while (
            self._waiting > BEHIND * rate
        ):  # a machine too slow, or one that stood still: the present counts
            self._waiting -= len(self._heard.popleft())
            self.skipped += 1
        self._arrived.set()

    async def run(self) -> str:
        """Feed the model, a frame at a time, until no sound arrives any more; returns why it ended."""
        first = True
        while True:
            while self._waiting == 0 or self._waiting < self._rate * self.engine.frame_seconds:
                self._arrived.clear()
                try:
                    await asyncio.wait_for(self._arrived.wait(), BROKEN if self.connected else CONNECT_WITHIN)
                except TimeoutError:
                    return "no sound arrived from your side"
            pcm, rate = self._next_frame(), self._rate
            level = float(np.sqrt(np.square(pcm / 32768).mean()))
            self._levels.append(level)
            if first:
                pcm, first = np.concatenate([np.zeros(round(rate * LEAD_IN), np.int16), pcm]), False
            for frame in await self.engine.worker.push(self.session, pcm, rate):
                self._take(frame, level)

    def _next_frame(self) -> np.ndarray:
        size, parts = round(self._rate * self.engine.frame_seconds), []
        while size > 0:
            part = self._heard.popleft()
            if len(part) > size:
                self._heard.appendleft(part[size:])
                part = part[:size]
            parts.append(part)
            size -= len(part)
            self._waiting -= len(part)
        return np.concatenate(parts)

    def _take(self, frame: Any, level: float) -> None:
        self.playout.push(frame.audio)
        interrupted = self._speaking and not frame.speaking and max(self._levels) > USER_SPEAKS
        if interrupted:  # what it had not said yet stays unsaid
            self.playout.clear()
        self._speaking = frame.speaking
        self._spent.append(frame.compute_seconds * 1000)
        message = {
            "type": "frame",
            "index": frame.index,
            "text": frame.text,
            "heard": frame.user_text,
            "level": round(level, 4),
            "speaking": frame.speaking,
            "turn": round(frame.turn_probability, 3),
        }
        if interrupted:
            message["interrupted"] = True
        if frame.index % 12 == 0:
            p50, p95 = np.percentile(self._spent, [50, 95])
            message |= {
                "p50": round(float(p50), 1),
                "p95": round(float(p95), 1),
                "skipped": self.skipped,
                "store": round(
                    (len(self.playout.pieces) * PIECE_SECONDS + self._waiting / self._rate) * 1000
                ),
            }
        self.send(message)

    async def inject(self, text: str) -> None:
        """Context that becomes known now."""
        await self.engine.worker.inject(self.session, text)

    # ---------------------------------------------------------------- out

    async def sound(self, pieces: int = 1) -> np.ndarray:
        """The next `pieces` * 20 ms, float32 [N], when they are due: always something, in silence too."""
        now = time.monotonic()
        if (
            self._start is None or now - self._start - self._sent * PIECE_SECONDS > 1.0
        ):  # a new clock after a standstill
            self._start, self._sent = now, 0
        wait = self._start + (self._sent + pieces) * PIECE_SECONDS - now
        await asyncio.sleep(max(0.0, wait))
        self._sent += pieces
        return np.concatenate([self.playout.pull() for _ in range(pieces)])

    async def close(self) -> None:
        """Forget the conversation; whoever carries its sound ends with it."""
        self.over.set()
        with contextlib.suppress(ValueError):  # it went with the model's process
            await self.engine.worker.close(self.session)
        self.playout.clear()
