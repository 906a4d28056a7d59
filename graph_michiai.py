"""A frame on a GPU: recorded as a CUDA graph and replayed, so that no operation waits for Python.

A graph works on fixed addresses. So its runner owns one set of memories per batch and prompt size, and lends it to one
StreamState at a time: while the same state steps, nothing is copied; when another one comes, the former gets its own
copy back.

On a CPU the same lines run without a graph, so that all but the capture itself can be tested there.
"""

import weakref
from typing import Any

import torch
from torch import Tensor

from .lanes_michiai import ENTERING
from .runner_michiai import WARM_UP, shape_of
from .streaming_michiai import StreamState


def _inputs(audio: Tensor, noise: Tensor, due: Tensor | None) -> dict[str, Tensor]:
    """What a graph reads anew for each frame."""
    return {"audio": audio, "noise": noise} | ({} if due is None else {"due": due})


class _Lent:
    """Fixed inputs, memories and outputs for one shape of conversation."""

    def __init__(self, model: Any, inputs: dict[str, Tensor], state: StreamState, flow_steps: int) -> None:
        self.model, self.flow_steps = model, flow_steps
        self.inputs = {name: value.clone() for name, value in inputs.items()}
        self.memory, self.borrower, self.graph, self.out = StreamState(), None, None, None
        scratch = state.fork()
        for _ in range(
            WARM_UP if inputs["audio"].is_cuda else 1
        ):  # also makes the memories that a new state lacks
            self._run(scratch)
        self.memory = StreamState(
            {path: state.get(path, torch.zeros_like(value)).clone() for path, value in scratch.items()}
        )
        if inputs["audio"].is_cuda:
            self._capture()

    def _run(self, state: StreamState) -> Any:
        return self.model.frame(self.inputs["audio"], state, self.inputs["noise"], self.flow_steps, due=self.inputs.get("due"))

    def _frame(self) -> None:
        """One frame whose new memories are written where the old ones stand."""
        state = StreamState(self.memory)
        self.out = self._run(state)
        for path, value in state.items():
            if value is not self.memory[path]:
                self.memory[path].copy_(value)

    def _capture(self) -> None:
        kept = self.memory.fork()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._frame()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._frame()
        for path, value in kept.items():
            self.memory[path].copy_(value)

    def lend(self, state: StreamState) -> None:
        """Make the fixed memories those of `state`."""
        former = self.borrower() if self.borrower is not None else None
        if former is not None and former is not state:
            for path, value in self.memory.items():
                if former.get(path) is value:
                    former[path] = value.clone()
        for path, value in self.memory.items():
            if path not in state:
                value.zero_()
            elif state[path] is not value:
                value.copy_(state[path])
            state[path] = value
        self.borrower = weakref.ref(state)

    def step(self, inputs: dict[str, Tensor], state: StreamState) -> Any:
        self.lend(state)
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        if self.graph is None:
            self._frame()
        else:
            self.graph.replay()
        return type(self.out)(**{name: value.clone() for name, value in vars(self.out).items()})


class GraphRunner:
    """`MichiAIModel.frame` by graphs, one per (batch, prompt positions, flow steps); made when first
    needed.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.lent = model, {}

    def __call__(
        self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1, words: int = ENTERING, due: Tensor | None = None
    ) -> Any:
        key = self.ready(audio, state, noise, flow_steps, due)
        return self.lent[key].step(_inputs(audio, noise, due), state)

    def ready(self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1, due: Tensor | None = None) -> tuple[int, ...]:
        """Record the frame for such conversations, if that is not done; -> its key."""
        self.model.backbone.open(noise, state)
        key = shape_of(audio, state, flow_steps, due)
        if key not in self.lent:
            self.lent[key] = _Lent(self.model, _inputs(audio, noise, due), state, flow_steps)
        return key


def use_graph(model: Any, device: str = "cuda") -> Any:
    """`model` in bfloat16 on a GPU, its steps as CUDA graphs."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            "optimize was asked for 'cuda', but torch finds no CUDA device here; expected 'cpu-int8'"
        )
    model.to(device, torch.bfloat16).requires_grad_(False).eval()
    model.speak_head.remember_jump()
    model.runner = GraphRunner(model)
    return model
