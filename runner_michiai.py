"""A frame recorded once and replayed: its small operations, three thousand where no kernel of ours goes through whole layers,
cost more in Python than in arithmetic.

On a CPU each stage of the frame is a TorchScript trace (the kernels' packed weights can be in it; no compiler is
needed, and it is made in a second or two), which takes the memories and gives them back. A trace costs some 10 KB
of memory per operation, so many layers that are alike are one record in a loop, and stages that do not differ are shared.

On a GPU it is a CUDA graph (`graph_michiai.py`).
"""

import contextlib
import copy
import ctypes
import mmap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit import _trace as trace
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from .lanes_michiai import ENTERING
from .streaming_michiai import StreamState, one_by_one, through

# runs before a record counts: libraries choose their kernels, and TorchScript its plan, in the first ones
WARM_UP = 3
FEW = 8  # layers that are recorded one by one: a loop saves memory, but costs 0.05 to 0.1 ms a layer


def shape_of(audio: Tensor, state: StreamState, flow_steps: int, due: Tensor | None) -> tuple[int, ...]:
    """What records are made for: batch, whether the voice is guided, slots of the prompt, flow steps, whether rows may not be due."""
    prompt = state["backbone.prompt"]
    return len(audio), prompt.ndim, prompt.shape[-2], flow_steps, due is not None


class _AnyLayer(nn.Module):
    """A layer whose code TorchScript looks up when it runs; what it knew before it would copy into the loop."""

    def forward(self, x: Tensor, shared: list[Tensor], own: list[Tensor]) -> Tensor:
        pass


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # on TorchScript's age
    torch.jit.interface(_AnyLayer)


class _Loop(nn.Module):
    """`streaming_michiai.one_by_one` in TorchScript."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, shared: list[Tensor], memory: list[Tensor]) -> Tensor:
        for index in range(len(self.layers)):
            layer: _AnyLayer = self.layers[index]
            x = layer.forward(x, shared, [part[:, index] for part in memory])
        return x


@contextlib.contextmanager
def _unscoped() -> Iterator[None]:
    """Trace into one graph. TorchScript would make a method of every module below and copy each into what calls it, level by level:
    for modules within modules that is twice the memory, and nothing else.
    """
    kept, trace._trace_module_map = trace._trace_module_map, None
    try:
        yield
    finally:
        trace._trace_module_map = kept


class _Layer(nn.Module):
    """A layer as tensors in, tensor out."""

    def __init__(self, step: Any, layer: nn.Module) -> None:
        super().__init__()
        self.step, self.layer = step, layer

    def forward(self, x: Tensor, shared: list[Tensor], own: list[Tensor]) -> Tensor:
        with _unscoped():
            return self.step(self.layer, x, shared, own)


def traced(module: nn.Module, example: tuple) -> Any:
    """A TorchScript trace of `module`; what its operations have as constants is held once."""
    made = torch.jit.trace(module, example, check_trace=False, _store_inputs=False)
    torch._C._jit_pass_constant_pooling(made.graph)
    return made


def _twin(record: Any, module: nn.Module) -> Any:
    """The traced module `record` (as C++ holds it) with the weights of `module`, of the same code."""
    twin = record.__copy__()
    packed = {name: value for name, value in vars(module).items() if isinstance(value, torch.ScriptObject)}
    for name, value in {**module._parameters, **module._buffers, **packed}.items():
        if twin.hasattr(name):
            twin.setattr(name, value)
    for name, child in module.named_children():
        if twin.hasattr(name):
            twin.setattr(name, _twin(record.getattr(name), child))
    return twin


def _bare(module: Any) -> None:
    """What TorchScript must know of a module that it has compiled; Python's shells around those below would take 0.1 MB a layer."""
    module._concrete_type = torch._C.ConcreteModuleType.from_jit_type(module._c._type())


class _Loops:
    """Records of layers that are alike: one is traced, the rest are its code with other weights."""

    def __init__(self) -> None:
        self.made: dict[tuple, Any] = {}

    def __call__(self, step: Any, layers: nn.ModuleList, x: Tensor, shared: list[Tensor], memory: list[Tensor]) -> Tensor:
        if len(layers) <= FEW:
            return one_by_one(step, layers, x, shared, memory)
        key = (layers, *(tuple(map(int, tensor.shape)) for tensor in (x, *shared, *memory)))
        if key not in self.made:
            example = (x, shared, [part[:, 0].clone() for part in memory])
            record = traced(_Layer(step, layers[0]), example)
            twins = [torch.jit.RecursiveScriptModule._construct(_twin(record._c, _Layer(step, layer)), _bare) for layer in layers]
            self.made[key] = torch.jit.script(_Loop(twins))
        return self.made[key](x, shared, memory)


class _Stage(nn.Module):
    """A stage of `MichiAIModel.frame` as tensors in, tensors out: what a trace can hold."""

    def __init__(self, stage: Any, paths: list[str], fixed: tuple, parts: list[nn.Module]) -> None:
        super().__init__()
        self.stage, self.paths, self.fixed, self.parts = stage, paths, fixed, nn.ModuleList(parts)

    def forward(self, memory: list[Tensor], *given: Tensor) -> tuple[Tensor, ...]:
        state = StreamState(zip(self.paths, memory, strict=True))
        with _unscoped():
            out = self.stage(state, *given, *self.fixed)
        return *out, *(state[path] for path in self.paths)


class _Watched(StreamState):
    """A state that notes which memories are asked for."""

    def __init__(self, state: StreamState) -> None:
        super().__init__(state)
        self.used: dict[str, None] = {}

    def __contains__(self, path: object) -> bool:
        self.used[str(path)] = None
        return super().__contains__(path)

    def __getitem__(self, path: str) -> Tensor:
        self.used[path] = None
        return super().__getitem__(path)

    def __setitem__(self, path: str, memory: Tensor) -> None:
        self.used[path] = None
        super().__setitem__(path, memory)

    def get(self, path: str, default: Any = None) -> Any:
        return self[path] if path in self else default


@contextlib.contextmanager
def _called() -> Iterator[list[nn.Module]]:
    """The modules that are called meanwhile, but not by one another."""
    called, inside, thread = [], [], threading.get_ident()

    def enter(module: nn.Module, _: tuple) -> None:
        if threading.get_ident() != thread:  # the hooks are of all threads
            return
        if not inside and module not in called:
            called.append(module)
        inside.append(module)

    def leave(*_: Any) -> None:
        if threading.get_ident() == thread:
            inside.pop()

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


class _Record:
    """A stage, traced for arguments and memories of some shapes.

    Args:
        state: memories of those shapes; the stage runs on it some times.
    """

    def __init__(self, stage: Any, state: StreamState, given: list[Tensor], fixed: tuple, loops: _Loops) -> None:
        watched = _Watched(state)
        token = through.set(loops)
        try:
            with warnings.catch_warnings():  # on shapes, which are fixed here, and on TorchScript's age
                warnings.simplefilter("ignore")
                with _called() as called:
                    self.n_out = len(stage(watched, *given, *fixed))  # this also makes the memories a new state lacks
                memory = {path: watched[path] for path in watched.used}
                self.empty = {path: value.to("meta") for path, value in memory.items()}
                frame = _Stage(stage, list(memory), fixed, [*called, *loops.made.values()]).eval()
                inputs = (list(memory.values()), *given)
                self.run = traced(frame, inputs)._c._get_method("forward")  # without Python's shell around every module of it
            for _ in range(WARM_UP):
                self._replay(*inputs)
        finally:
            through.reset(token)
        state.update(memory)

    def fits(self, state: StreamState) -> bool:
        """Whether the memories that `state` has are of the record's shapes."""
        return all(state[path].shape == like.shape for path, like in self.empty.items() if path in state)

    def _replay(self, *inputs: Any) -> tuple[Tensor, ...]:
        with torch.jit.optimized_execution(False):  # its groups of operations to be fused, which a CPU never does, take time and memory
            return self.run(*inputs)

    def __call__(self, state: StreamState, given: list[Tensor]) -> tuple[Tensor, ...]:
        values = self._replay([state[path] if path in state else _zeros(like) for path, like in self.empty.items()], *given)
        state.update(zip(self.empty, values[self.n_out :], strict=True))
        return values[: self.n_out]


class TraceRunner:
    """`MichiAIModel.frame` with its stages as TorchScript traces; made when first needed. Any number of threads may use it."""

    def __init__(self, model: Any) -> None:
        self.model, self.loops, self.recording = model, _Loops(), threading.Lock()
        self.records: dict[tuple, list[_Record]] = {}
        self.recorded: set[tuple[int, ...]] = set()

    def __deepcopy__(self, memo: dict) -> "TraceRunner":
        return TraceRunner(copy.deepcopy(self.model, memo))  # a copy's weights are others: it records anew

    def __call__(
        self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1, words: int = ENTERING, due: Tensor | None = None
    ) -> Any:
        self.ready(audio, state, noise, flow_steps, due)
        return self.model.frame(audio, state, noise, flow_steps, words, due, run=self._replay)

    def ready(self, audio: Tensor, state: StreamState, noise: Tensor, flow_steps: int = 1, due: Tensor | None = None) -> None:
        """Record the frame for such conversations, with each number of words that may enter, if that is not done."""
        self.model.backbone.open(noise, state)
        shape = shape_of(audio, state, flow_steps, due)
        if shape in self.recorded:
            return
        with self.recording:
            if shape in self.recorded:  # by another thread, meanwhile
                return
            scratch = state.fork()
            for words in range(ENTERING + 1):
                self.model.frame(audio, scratch, noise, flow_steps, words, due, run=self._record)
            self.recorded.add(shape)
            give_back()

    def _find(self, stage: Any, state: StreamState, arguments: tuple) -> tuple[list[_Record], list[Tensor], tuple, _Record | None]:
        """Records of such arguments, the tensors among them, the rest, and the record that fits."""
        given = [value for value in arguments if isinstance(value, Tensor)]
        fixed = arguments[len(given) :]
        records = self.records.setdefault((stage.__name__, *(value.shape for value in given), *fixed), [])
        return records, given, fixed, next((record for record in records if record.fits(state)), None)

    def _replay(self, stage: Any, state: StreamState, *arguments: Any) -> tuple[Tensor, ...]:
        _, given, _, record = self._find(stage, state, arguments)
        return record(state, given)

    def _record(self, stage: Any, state: StreamState, *arguments: Any) -> tuple[Tensor, ...]:
        records, given, fixed, record = self._find(stage, state, arguments)
        if record is None:
            record = _Record(stage, state, given, fixed, self.loops)
            records.append(record)
        return record(state, given)


def give_back() -> None:
    """Hand memory that was used and is free again back to the system; glibc would keep it."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no need of it
        ctypes.CDLL(None).malloc_trim(0)


def let_go_of_file(tensor: Tensor) -> None:
    """Hold no page of the file that `tensor` is mapped from, if it is: what is touched later is read again then."""
    address = tensor.data_ptr()
    with contextlib.suppress(OSError, AttributeError):  # Linux knows where it lies; elsewhere the pages stay until memory is short
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, _, _, _, inode, *_ = line.split()
            first, last = (int(end, 16) for end in span.split("-"))
            if first <= address < last and inode != "0":
                ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def _zeros(like: Tensor) -> Tensor:
    """The empty past in the layout of a memory on the meta device."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).zero_()
