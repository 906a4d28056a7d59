"""Several conversations through a model together: each weight is read once for all of them.

    batch = model.batch(8)  # at most
    batch.add(session), batch.add(other)
    for frames in batch.push([(session, pcm, 48_000), (other, pcm, 48_000)]): ...

Each session has a row of one StreamState. A step goes through all rows; those whose frame is not complete yet are not due, and
stay as they were, so every conversation keeps its own clock.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .session_michiai import DuplexSession, Frame
from .streaming_michiai import StreamState


class Batch:
    """Room for some sessions of a model, which they may enter and leave at any time. Called from one thread.

    It has 2, 4, 8 ... rows, as many as it needs: an empty one costs as much as one that is taken. A single session keeps its memory,
    and goes by itself.

    Args:
        model: a MichiAIModel; when optimised, it records frames for each number of rows.
        limit: how many sessions at most.
    """

    def __init__(self, model: Any, limit: int) -> None:
        if not isinstance(limit, int) or limit < 1:
            raise ValueError(f"a batch was asked for {limit!r} sessions; expected 1 or more")
        self.model, self.limit = model, limit
        self.sessions: list[DuplexSession] = []
        self.sizes = [2**n for n in range(1, limit.bit_length()) if 2**n < limit] + [limit] * (limit > 1)
        for size in self.sizes:
            self._open(size)
            if model.runner is not None:
                with torch.inference_mode():
                    audio, noise, due = self._inputs()
                    model.runner.ready(audio, self.state, noise, due=due)
        self._open(0)

    @torch.inference_mode()
    def _open(self, size: int) -> None:
        """So many rows, all of them free."""
        self.rows: list[DuplexSession | None] = [None] * size
        self.state, self.due = StreamState(), torch.zeros(size, dtype=torch.bool)
        self.audio, self.noise = torch.zeros(size, self.model.config.frame_size), torch.zeros(size, self.model.config.latent_dim)
        if size:
            self.model.backbone.open(self._inputs()[1], self.state, self.model.config.max_prompt)

    def _inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Audio, noise and what is due, where the model lies."""
        like = self.model.default_voice
        return self.audio.to(like.device), self.noise.to(like.device, self.model.dtype), self.due.to(like.device)

    # ---------------------------------------------------------------- who is here

    def add(self, session: DuplexSession) -> None:
        """From now on the session goes through the model with the others; it is used as before."""
        if session.model is not self.model:
            raise ValueError("the session is of another model than the batch; expected one made by the same model's session()")
        if session.batch is not None or session.closed:
            raise ValueError("the session is in a batch already, or closed; expected an open one of its own")
        if session.guided or session.options.flow_steps != 1:
            raise ValueError(f"the session has {session.options}; expected one flow step and no guidance: rows of a batch are alike")
        if len(self.sessions) == self.limit:
            raise ValueError(f"all {self.limit} places of the batch are taken; expected a free one: close a session, or make a larger one")
        self.sessions.append(session)
        session.batch = self
        self._arrange()

    def remove(self, session: DuplexSession) -> None:
        """The session goes its own way again."""
        if session not in self.sessions:
            raise ValueError("the session is not in this batch; expected one that was added and not removed since")
        self._take_out(session)
        self.sessions.remove(session)
        session.batch = None
        self._arrange()

    def _take_out(self, session: DuplexSession) -> None:
        """Give a session its memory."""
        if session.state is None:
            session.state = self.get(session)
            self.rows[self.rows.index(session)] = None

    def _arrange(self) -> None:
        """As few rows as will do, and everybody in one."""
        size = next((size for size in self.sizes if 1 < len(self.sessions) <= size), 0)
        if size != len(self.rows):
            for session in self.sessions:
                self._take_out(session)
            self._open(size)
        for session in self.sessions:
            if size and session.state is not None:
                self.rows[self.rows.index(None)] = session
                state, session.state = session.state, None
                self.put(session, state)

    def get(self, session: DuplexSession) -> StreamState:
        """A copy of the memory that lies in a session's row."""
        return self.state.select(torch.tensor([self.rows.index(session)], device=self.model.default_voice.device))

    @torch.inference_mode()
    def put(self, session: DuplexSession, state: StreamState) -> None:
        """Let a session's row hold this memory."""
        row = self.rows.index(session)
        self.model.backbone.open(state["backbone.text"], state, self.model.config.max_prompt)
        for path in {**self.state, **state}:
            mine = self.state.begin(path, lambda path=path: state[path].new_zeros(len(self.rows), *state[path].shape[1:]))
            mine[row] = state[path][0] if path in state else 0

    # ---------------------------------------------------------------- sound

    def push(self, given: Sequence[tuple[DuplexSession, Any, int | None]]) -> list[list[Frame]]:
        """User audio of different sessions, each as `DuplexSession.push` takes it -> of each the frames that are now complete."""
        if len({session for session, _, _ in given}) < len(given):
            raise ValueError("a session was given twice; expected different ones: put its chunks together")
        heard = [(session, session.checked(pcm, rate)) for session, pcm, rate in given]  # of all, before anybody takes anything in
        for session, sound in heard:
            session.take(*sound)
        return self.frames([session for session, _, _ in given])

    def frames(self, sessions: Sequence[DuplexSession]) -> list[list[Frame]]:
        """Of each of these different sessions the frames that are due by what it has heard."""
        frames = {session: [] if session.state is None else session.frames() for session in sessions}
        while due := [session for session in frames if session.frame_is_due]:
            for session, frame in zip(due, self._step(due), strict=True):
                frames[session].append(frame)
        return list(frames.values())

    @torch.inference_mode()
    def _step(self, sessions: list[DuplexSession]) -> list[Frame]:
        """The next frame of each of these."""
        began, rows = time.perf_counter(), [self.rows.index(session) for session in sessions]
        self.due.zero_()
        for row, session in zip(rows, sessions, strict=True):
            self.due[row] = True
            self.audio[row], self.noise[row] = session.next_inputs()

        def choose(logits: Tensor) -> Tensor:
            scores, tokens = logits.float().cpu(), torch.zeros(len(logits), dtype=torch.long)  # at once: each wait for a GPU takes long
            for row, session in zip(rows, sessions, strict=True):
                tokens[row] = session.choose(scores[row : row + 1])[0]
            return tokens.to(logits.device)

        audio, noise, due = self._inputs()
        out = self.model.step(audio, self.state, noise, choose=choose, due=due)
        out = replace(out, **{name: getattr(out, name).cpu() for name in ("audio", "own_text", "user_text", "turn_probability")})
        return [session.follow(out, row, began) for row, session in zip(rows, sessions, strict=True)]
