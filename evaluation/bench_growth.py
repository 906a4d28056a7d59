"""bench growth: how the step grows with sessions, flow steps, the prompt's length and the conversation's."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .bench_step import PRESET
from .load import load_model, random_model
from .report import table
from .speed import Conversation, threads

SESSIONS, FLOW_STEPS, PROMPTS = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16), (0, 64, 128, 192, 256)
HOUR = 45_000  # frames of 80 ms
POINTS = 60  # of the hour's curves


def resident() -> float:
    """Megabytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def hour(model: Any, frames: int) -> dict:
    """A conversation fed as fast as it computes: processor milliseconds per step, and memory, in equal
    stretches.
    """
    conversation, stretch = Conversation(model), max(1, frames // POINTS)
    at, step, memory = [], [], []
    conversation.steps(
        model.config.window + 20 if frames == HOUR else 10, warm_up=0
    )  # past the window: the ring is full
    for i in range(frames // stretch):
        spent = conversation.steps(stretch, warm_up=0, clock=time.process_time)
        at.append((i + 1) * stretch / model.config.frame_rate / 60)
        step.append(float(np.median(spent)) * 1e3)
        memory.append(resident())
    fifth = max(1, len(step) // 5)
    return {
        "minutes": at,
        "step_ms": step,
        "resident_mb": memory,
        "memory_growth": memory[-1] / memory[min(2, len(memory) - 1)] - 1,
        "step_growth": float(np.median(step[-fifth:]) / np.median(step[:fifth]) - 1),
        "clock": "processor time of the process",
    }


def plot(curves: dict[str, tuple[list, list, str, str]], path: Path) -> None:
    """One PNG with a panel per curve: {title: (x, y, x label, y label)}."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(curves), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, (x, y, x_label, y_label)) in zip(
        np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True
    ):
        axis.plot(x, y, marker="o" if len(x) < 20 else None, color="#4361ee")
        axis.set(title=title, xlabel=x_label, ylabel=y_label, ylim=(0, 1.15 * max(y)))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def median(model: Any, frames: int, **given: int) -> float:
    """Milliseconds of a step."""
    return float(np.median(Conversation(model, **given).steps(frames, warm_up=3))) * 1e3


def sessions_of_530m(sessions: Sequence[int], frames: int, device: str) -> dict[int, float]:
    """Milliseconds of a frame of so many conversations, as far as the GPU's memory suffices."""
    preset, found = random_model(PRESET, device).optimize("cuda"), {}
    try:
        for n in sessions:
            found[n] = median(preset, frames, batch=n)
    except torch.OutOfMemoryError:
        print(f"530M: no memory for {n} sessions")
    del preset
    torch.cuda.empty_cache()
    return found


def run(model_path: str, out: Path, quick: bool, device: str = "cpu") -> dict:
    """-> curves of nano on one thread (or on the GPU, and there the 530M's sessions), drawn to `out`/growth.png and `out`/hour.png."""
    frames, on_gpu = 3 if quick else 15, device.startswith("cuda")
    sessions = SESSIONS[:2] if quick else (*SESSIONS, 128, 256, 384, 512) if on_gpu else SESSIONS
    big = sessions_of_530m(sessions, frames, device) if on_gpu and not quick else {}
    with threads(1):
        model = load_model(model_path, device).optimize("cuda" if on_gpu else "cpu-int8")
        by_sessions = [median(model, frames, batch=n) for n in sessions]
        flow = FLOW_STEPS[:2] if quick else FLOW_STEPS
        by_flow = [median(model, frames, flow_steps=n) for n in flow]
        prompts = PROMPTS[:2] if quick else PROMPTS
        by_prompt = [median(model, frames, context=n) for n in prompts]
        long = hour(model, 100 if quick else HOUR)
    plot(
        {
            "sessions on one model": (list(sessions), by_sessions, "sessions", "ms per frame of all"),
            "flow steps": (list(flow), by_flow, "flow steps", "ms per frame"),
            "prompt": (list(prompts), by_prompt, "tokens", "ms per frame"),
        },
        out / "growth.png",
    )
    plot(
        {
            "an hour of conversation: step": (long["minutes"], long["step_ms"], "minutes", "ms per frame"),
            "memory": (long["minutes"], long["resident_mb"], "minutes", "MB resident"),
        },
        out / "hour.png",
    )
    rows = [
        *([["sessions of the 530M", *big.items()]] if big else []),
        ["sessions", *zip(sessions, by_sessions, strict=True)],
        ["flow steps", *zip(flow, by_flow, strict=True)],
        ["prompt tokens", *zip(prompts, by_prompt, strict=True)],
    ]
    print(
        table(
            ["nano, ms per frame", "value: ms"],
            [[name, "  ".join(f"{n}: {ms:.1f}" for n, ms in pairs)] for name, *pairs in rows],
        )
    )
    print(f"an hour: memory {long['memory_growth']:+.1%}, step {long['step_growth']:+.1%}")
    return {
        "sessions": dict(zip(sessions, by_sessions, strict=True)),
        "sessions_530m": big,
        "flow_steps": dict(zip(flow, by_flow, strict=True)),
        "prompt": dict(zip(prompts, by_prompt, strict=True)),
        "hour": long,
        "plots": ["growth.png", "hour.png"],
    }
