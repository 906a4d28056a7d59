"""Speed: the step of one session, one frame at a time, as a conversation has it.

Step compute is the time from a frame's last sample to the answer frame's first one; the real-time factor is
its mean over 80 ms.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from .report import table

WARM_UP = 10
WORD_EVERY = 3  # frames, in which 4.2 pieces of words are heard a second: a fast speaker who never pauses
SURE = 1e4  # score by which the listen head is sure that a word ends, or does not


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on `count` CPU threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wait(device: torch.device) -> None:
    """Until a GPU has finished what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize()


class Conversation:
    """`batch` conversations of random sound with a model, after a prompt of `context` random tokens and its
    own voice.

    What a frame costs depends on whether a word is heard in it, or was in the frame before. Noise has none, and the gate of random
    weights opens at random; so here a word, whichever, is heard in every third frame, and in every one where there are more
    conversations, of which one nearly always hears something.
    """

    def __init__(self, model: Any, context: int = 0, batch: int = 1, flow_steps: int = 1) -> None:
        from michiai.streaming_michiai import StreamState

        self.model, self.flow_steps, self.batch, self.state = model, flow_steps, batch, StreamState()
        self.gate, self.every, self.index = model.listen.gates.bias.data, max(WORD_EVERY // batch, 1), 0
        self.generator, self.like = torch.Generator().manual_seed(0), model.default_voice
        tokens = torch.randint(
            10, model.config.text_config.vocab_size, (batch, context), generator=self.generator
        )
        voice = self.like[None].expand(batch, -1, -1).to(model.dtype)
        model.prompt(self.state, tokens.to(self.like.device), voice)

    def step(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """Seconds of one frame, until its samples are on the CPU."""
        config = self.model.config
        audio = 0.1 * torch.randn(self.batch, config.frame_size, generator=self.generator)
        noise = torch.randn(self.batch, config.latent_dim, generator=self.generator)
        audio, noise = audio.to(self.like.device), noise.to(self.like.device, self.model.dtype)
        kept, self.index = self.gate.clone(), self.index + 1
        self.gate[0] = -SURE if self.index % self.every else SURE
        wait(self.like.device)
        began = clock()
        self.model.step(audio, self.state, noise, flow_steps=self.flow_steps, choose=self._say_nothing).audio.float().cpu()
        spent = clock() - began
        self.gate.copy_(kept)
        return spent

    def _say_nothing(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(logits), dtype=torch.long, device=logits.device)

    def steps(
        self, frames: int, warm_up: int = WARM_UP, clock: Callable[[], float] = time.perf_counter
    ) -> np.ndarray:
        """Seconds of every step [frames], after a warm-up."""
        return np.array([self.step(clock) for _ in range(warm_up + frames)])[warm_up:]


def percentiles(spent: np.ndarray, name: str = "step") -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    return {f"{name}_ms_p{p}": float(np.percentile(spent, p)) * 1000 for p in (50, 95, 99)}


def measure(model: Any, frames: int, flow_steps: int = 1, n_threads: int = 1, context: int = 0) -> dict:
    """Figures of one model on `n_threads` cores (or on its GPU)."""
    with threads(n_threads):
        spent = Conversation(model, context, flow_steps=flow_steps).steps(frames)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(model.default_voice.device),
        "form": "eager" if model.runner is None else model.config.optimized or "cuda graph",
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": n_threads,
        "flow_steps": flow_steps,
        "context": context,
        "frames": frames,
        **percentiles(spent),
        "rtf": float(spent.mean()) * model.config.frame_rate,
    }


def print_speed(rows: dict[str, dict]) -> None:
    """A table of `measure`'s figures by name."""
    head = [
        "model",
        "where",
        "form",
        "context",
        "frames",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "RTF",
        "TTFA (a) p50",
        "p95",
    ]
    body = []
    for name, r in rows.items():
        figures = [f"{r[key]:.1f}" for key in ("step_ms_p50", "step_ms_p95", "step_ms_p99")]
        first = [f"{r[key]:.1f}" if key in r else "-" for key in ("ttfa_ms_p50", "ttfa_ms_p95")]
        where = f"{r['device']}, {r['threads']} thread(s)"
        body.append([name, where, r["form"], r["context"], r["frames"], *figures, f"{r['rtf']:.3f}", *first])
    print(table(head, body))
