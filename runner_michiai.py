"""A frame recorded once and replayed: its three thousand small operations cost more in Python than in
arithmetic.

On a CPU the record is a TorchScript trace (the kernels' packed weights can be in it; no compiler is needed,
and it is made in a second or two), which takes the memories and gives them back.

On a GPU it is a CUDA graph, which works on fixed addresses. So its runner owns one set of memories per batch
and prompt size, and lends it to one StreamState at a time: while the same state steps, nothing is copied;
when another one comes, the former gets its own copy back.

On a CPU the same lines run without a graph, so that all but the capture itself can be tested there.
"""

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from .codec_michiai import LogMel
from .streaming_michiai import StreamState

# runs before a record counts: libraries choose their kernels, and TorchScript its plan, in the first ones
WARM_UP = 3


def shape_of(audio: Tensor, state: StreamState, flow_steps: int, words: bool = True) -> tuple[int, ...]:
    """What a record is made for: batch, slots of the prompt, flow steps, whether words enter the text lane."""
    return len(audio), state["backbone.prompt"].shape[4], flow_steps, words


class _Frame(nn.Module):
    """`MichiAIModel.frame` as tensors in, tensors out: what a trace can hold."""

    def __init__(self, model: Any, paths: list[str], flow_steps: int, words: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList([model.listen, model.backbone, model.speak_head, model.vocoder])
        self.run, self.paths, self.flow_steps, self.words = model.frame, paths, flow_steps, words

    def forward(self, audio: Tensor, noise: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        state = StreamState(zip(self.paths, memory, strict=True))
        out = vars(self.run(audio, state, noise, self.flow_steps, self.words))
        return *out.values(), *(state[path] for path in self.paths)


class TraceRunner:
    """`MichiAIModel.frame` by TorchScript traces, one per shape; made when first needed."""

    def __init__(self, model: Any) -> None:
        self.model, self.traces = model, {}

    def __call__(self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1, words: bool = True) -> Any:
        self.ready(audio, state, noise, flow_steps)
        # the traced frame, {path: memory on the meta device}, StepOutput
        trace, empty, output = self.traces[shape_of(audio, state, flow_steps, words)]
        memory = [state[path] if path in state else _zeros(like) for path, like in empty.items()]
        values = trace(audio, noise, *memory)
        n_out = len(values) - len(memory)
        state.update(zip(empty, values[n_out:], strict=True))
        return output(*values[:n_out])

    def ready(self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1) -> None:
        """Record the frame for such conversations, with words and without, if that is not done."""
        self.model.backbone.open(noise, state)
        for words in (True, False):
            key = shape_of(audio, state, flow_steps, words)
            if key not in self.traces:
                self.traces[key] = self._trace(audio, state.fork(), noise, flow_steps, words)

    def _trace(
        self, audio: Tensor, scratch: StreamState, noise: Tensor, flow_steps: int, words: bool
    ) -> tuple[Any, StreamState, type]:
        output = type(
            self.model.frame(audio, scratch, noise, flow_steps, words)
        )  # this also makes the memories a new state lacks
        frame = _Frame(self.model, list(scratch), flow_steps, words).eval()
        memory = list(scratch.values())
        profiling = torch._C._jit_set_profiling_executor(False)  # as fast without, and the 530M 60 MB smaller
        try:
            with warnings.catch_warnings():  # on shapes, which are fixed here, and on TorchScript's age
                warnings.simplefilter("ignore")
                trace = torch.jit.trace(frame, (audio, noise, *memory), check_trace=False, _store_inputs=False)
            for _ in range(WARM_UP):
                trace(audio, noise, *memory)
        finally:
            torch._C._jit_set_profiling_executor(profiling)
        return trace, StreamState({path: value.to("meta") for path, value in scratch.items()}), output


def _zeros(like: Tensor) -> Tensor:
    """The empty past in the layout of a memory on the meta device."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).zero_()


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
        return self.model.frame(self.inputs["audio"], state, self.inputs["noise"], self.flow_steps)

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

    def __call__(self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1, words: bool = True) -> Any:
        key = self.ready(audio, state, noise, flow_steps)
        return self.lent[key].step({"audio": audio, "noise": noise}, state)

    def ready(self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1) -> tuple[int, ...]:
        """Record the frame for such conversations, if that is not done; -> its key."""
        self.model.backbone.open(noise, state)
        key = shape_of(audio, state, flow_steps)
        if key not in self.lent:
            self.lent[key] = _Lent(self.model, {"audio": audio, "noise": noise}, state, flow_steps)
        return key


def use_graph(model: Any, device: str = "cuda") -> Any:
    """`model` in bfloat16 on a GPU, its steps as CUDA graphs."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            "optimize was asked for 'cuda', but torch finds no CUDA device here; expected 'cpu-int8'"
        )
    model.to(device, torch.bfloat16).requires_grad_(False).eval()
    for part in model.modules():  # what touches samples stays exact
        if isinstance(part, LogMel):
            part.float()
    model.vocoder.head.float()
    model.runner = GraphRunner(model)
    return model
