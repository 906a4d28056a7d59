"""Several conversations through a model together: each weight is read once for all of them.

    batch = model.batch(8)
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

    Args:
        model: a MichiAIModel; when optimised, it records frames for so many rows.
        rows: how many sessions at most.
    """

    def __init__(self, model: Any, rows: int) -> None:
        if not isinstance(rows, int) or rows < 1:
            raise ValueError(f"a batch was asked for {rows!r} rows; expected 1 or more")
        self.model, self.state, self.sessions = model, StreamState(), [None] * rows
        self.audio = torch.zeros(rows, model.config.frame_size)
        self.noise = torch.zeros(rows, model.config.latent_dim)
        self.due = torch.zeros(rows, dtype=torch.bool)
        with torch.inference_mode():
            audio, noise, due = self._inputs()
            model.backbone.open(noise, self.state, model.config.max_prompt)
            if model.runner is not None:
                model.runner.ready(audio, self.state, noise, due=due)

    def _inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Audio, noise and what is due, where the model lies."""
        like = self.model.default_voice
        return self.audio.to(like.device), self.noise.to(like.device, self.model.dtype), self.due.to(like.device)

    # ---------------------------------------------------------------- who is here

    def add(self, session: DuplexSession) -> None:
        """From now on the session goes through the model with the others; it is used as before."""
        if session.batch is not None or session.closed:
            raise ValueError("the session is in a batch already, or closed; expected an open one of its own")
        if session.guided or session.options.flow_steps != 1:
            raise ValueError(f"the session has {session.options}; expected one flow step and no guidance: rows of a batch are alike")
        if None not in self.sessions:
            raise ValueError(f"all {len(self.sessions)} rows are taken; expected a free one: close a session, or make a larger batch")
        self.sessions[self.sessions.index(None)] = session
        session.batch = self
        self._arrange()

    def remove(self, session: DuplexSession) -> None:
        """The session goes its own way again."""
        if session.state is None:
            session.state = self.get(session)
        self.sessions[self.sessions.index(session)], session.batch = None, None
        self._arrange()

    def _arrange(self) -> None:
        """Two or more have their memories here; a single one keeps its own, and is faster by itself."""
        here = [session for session in self.sessions if session is not None]
        for session in here:
            if len(here) > 1 and session.state is not None:
                state, session.state = session.state, None
                self.put(session, state)
            elif len(here) == 1 and session.state is None:
                session.state = self.get(session)

    def get(self, session: DuplexSession) -> StreamState:
        """A copy of the memory that lies in a session's row."""
        return self.state.select(torch.tensor([self.sessions.index(session)], device=self.model.default_voice.device))

    @torch.inference_mode()
    def put(self, session: DuplexSession, state: StreamState) -> None:
        """Let a session's row hold this memory."""
        row = self.sessions.index(session)
        self.model.backbone.open(state["backbone.text"], state, self.model.config.max_prompt)
        for path in {**self.state, **state}:
            mine = self.state.begin(path, lambda path=path: state[path].new_zeros(len(self.sessions), *state[path].shape[1:]))
            mine[row] = state[path][0] if path in state else 0

    # ---------------------------------------------------------------- sound

    def push(self, given: Sequence[tuple[DuplexSession, Any, int | None]]) -> list[list[Frame]]:
        """User audio of some sessions, each as `DuplexSession.push` takes it -> of each the frames that are now complete."""
        for session, pcm, rate in given:
            session.hear(pcm, rate)
        return self.frames([session for session, _, _ in given])

    def frames(self, sessions: Sequence[DuplexSession]) -> list[list[Frame]]:
        """Of each of these sessions the frames that are due by what it has heard."""
        frames = {session: [] if session.state is None else session.frames() for session in sessions}
        while due := [session for session in frames if session.frame_is_due]:
            for session, frame in zip(due, self._step(due), strict=True):
                frames[session].append(frame)
        return list(frames.values())

    def _step(self, sessions: list[DuplexSession]) -> list[Frame]:
        """The next frame of each of these."""
        began, rows = time.perf_counter(), [self.sessions.index(session) for session in sessions]
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
