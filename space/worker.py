"""The model's own process, in which all live conversations run, stepped together as far as their frames are complete together.

The process of the page encodes and sends sound for every visitor, and holds Python's lock for much of the time. A frame is hundreds of
small operations, each of which would wait for that lock: with six visitors it took longer than the frame itself.
"""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
START = "from space.worker import main; main()"
GONE = "the model's process has ended, and another one is being started: press Talk again in half a minute"
AGAIN = 1.0  # seconds until a process that has ended is followed by another


@dataclass(frozen=True)
class Answer:
    """A frame of the model as the page takes it: 80 ms of conversation."""

    index: int
    audio: np.ndarray  # float32 [samples per frame]
    text: str
    user_text: str
    speaking: bool
    turn_probability: float
    compute_seconds: float


def load(model_id: str) -> Any:
    """The model as anybody would load it, warmed up, in its fast form: a fifth of a step's time, and answers that are alike within a
    point.
    """
    from transformers import AutoModel

    torch.set_num_threads(1)  # models this small are fastest on one thread
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModel.from_pretrained(model_id, trust_remote_code=True).to(device).eval().optimize()
    model.warm_up()
    return model


class Worker:
    """The page's end: live sessions by number. A process that ends, for want of memory say, takes its conversations with it, and is
    followed by another.

    Args:
        model_id: a folder, or a repository on the Hub.
        conversations: how many may be live at once.
    """

    def __init__(self, model_id: str, conversations: int) -> None:
        self.model_id, self.conversations = model_id, conversations
        self.lock, self.stopped = threading.Lock(), threading.Event()
        self.numbers = count(1)  # of messages and sessions, never used again: a session of an ended process is unknown to the next one
        self.asked: dict[int, Future] = {}
        self._start()
        threading.Thread(target=self._listen, name="answers", daemon=True).start()

    def _start(self) -> None:
        self.ready = self.asked[0] = Future()  # the first answer tells that the model is there
        mine, other = socket.socketpair()
        command = [sys.executable, "-c", START, str(other.fileno()), self.model_id, str(self.conversations)]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        # in a group of its own: Ctrl+C is the page's, and with the page its connection ends
        self.process = subprocess.Popen(command, pass_fds=[other.fileno()], env={**os.environ, "PYTHONPATH": path}, process_group=0)
        other.close()
        self.connection = Connection(mine.detach())

    def _listen(self) -> None:
        while True:
            try:
                while True:
                    number, value = self.connection.recv()
                    answer = self.asked.pop(number)
                    answer.set_exception(value) if isinstance(value, Exception) else answer.set_result(value)
            except (EOFError, OSError):
                with self.lock:
                    lost, self.asked, self.ready = self.asked, {}, Future()
                for answer in lost.values():
                    answer.set_exception(ValueError(GONE))
            if self.stopped.wait(AGAIN):
                return
            logger.error("the model's process has ended (%s); another one is started", self.process.wait())
            with contextlib.suppress(OSError):  # no memory for a process either: the old connection ends again, and so on
                self._start()

    def _ask(self, name: str, *arguments: Any) -> Future:
        """Send a message; refused at once while there is no model to answer it."""
        number, answer = next(self.numbers), Future()
        answer.set_running_or_notify_cancel()  # who waits may go; the answer comes all the same
        with self.lock:
            if not self.ready.done():
                raise ValueError(GONE)
            self.asked[number] = answer
            try:
                self.connection.send((number, name, arguments))
            except OSError as error:
                del self.asked[number]
                raise ValueError(GONE) from error
        return answer

    async def open(self, voice: np.ndarray | None = None, **told: Any) -> int:
        """A session; arguments as of `model.session`, the voice as its latents."""
        session = next(self.numbers)
        opened = self._ask("open", session, voice, told)
        try:
            await asyncio.wrap_future(opened)
        except asyncio.CancelledError:  # nobody waits for it any more; before anybody else's is opened, it is closed
            with contextlib.suppress(ValueError):
                self._ask("close", session)
            raise
        return session

    async def push(self, session: int, pcm: np.ndarray, rate: int) -> list[Answer]:
        """Give a session user audio; its frames that are complete then."""
        return await asyncio.wrap_future(self._ask("push", session, pcm, rate))

    async def inject(self, session: int, text: str) -> None:
        """Context that becomes known now."""
        await asyncio.wrap_future(self._ask("inject", session, text))

    async def close(self, session: int) -> None:
        """Forget a session."""
        await asyncio.wrap_future(self._ask("close", session))

    def stop(self) -> None:
        """End the process, for good."""
        self.stopped.set()
        self.process.terminate()
        self.process.wait()


def told(error: Exception) -> Exception:
    """An error as the page is told it: what a visitor can mend as it is, of anything else that it happened; the rest is in the log."""
    if isinstance(error, ValueError):
        return error
    logger.error("a conversation broke", exc_info=error)
    return RuntimeError(repr(error))


class Sessions:
    """The model's end.

    Args:
        model: as `load` makes it.
        conversations: how many may be live at once.
    """

    def __init__(self, model: Any, conversations: int) -> None:
        self.model, self.batch = model, model.batch(conversations)
        self.live: dict[int, Any] = {}

    def open(self, number: int, voice: np.ndarray | None, told: dict) -> None:
        session = self.model.session(voice=None if voice is None else self.model.Voice(torch.from_numpy(voice)), **told)
        self.batch.add(session)
        self.live[number] = session

    def inject(self, number: int, text: str) -> None:
        self._session(number).inject(text)

    def close(self, number: int) -> None:
        self._session(number).close()
        del self.live[number]

    def _session(self, number: int) -> Any:
        if number not in self.live:
            raise ValueError("the session is closed; expected an open one")
        return self.live[number]

    def push(self, given: dict[int, tuple[int, np.ndarray, int]]) -> list[tuple[int, Any]]:
        """Of each session the number of a message, and its audio -> what each message is answered."""
        answers, heard = [], {}
        for number, (message, pcm, rate) in given.items():
            try:
                session = self._session(number)
                session.hear(pcm, rate)
                heard[message] = session
            except Exception as error:
                answers.append((message, told(error)))
        try:
            made = self.batch.frames(list(heard.values()))
        except Exception as error:
            return answers + [(message, told(error)) for message in heard]
        for message, frames in zip(heard, made, strict=True):
            answers.append((message, [Answer(**{**vars(frame), "audio": frame.audio.numpy()}) for frame in frames]))
        return answers

    def answer(self, asked: list[tuple[int, str, tuple]]) -> list[tuple[int, Any]]:
        """Messages in their order -> answers; audio that came in together goes through the model together."""
        answers, together = [], {}
        for number, name, arguments in asked:
            if name != "push" or arguments[0] in together:
                answers += self.push(together)
                together = {}
            if name == "push":
                session, *audio = arguments
                together[session] = (number, *audio)
            else:
                try:
                    answers.append((number, getattr(self, name)(*arguments)))
                except Exception as error:
                    answers.append((number, told(error)))
        return answers + self.push(together)


def main() -> None:
    """`python -c START FD MODEL_ID CONVERSATIONS`: answer until the page has gone."""
    connection, model_id, conversations = Connection(int(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    try:
        sessions = Sessions(load(model_id), conversations)
    except (OSError, ValueError):
        sys.exit(1)  # the page, which loads it too, says why
    try:
        connection.send((0, None))
        while True:
            asked = [connection.recv()]
            while connection.poll():
                asked.append(connection.recv())
            for answer in sessions.answer(asked):
                connection.send(answer)
    except (EOFError, OSError):
        pass
