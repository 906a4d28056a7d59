"""Speed: the step of one session, one frame at a time, as a conversation has it.

Step compute is the time from a frame's last sample to the answer frame's first one; the real-time factor is
its mean over 80 ms.
"""

import time
from typing import Any

import numpy as np
import torch

from .report import table

WARM_UP = 10


def time_steps(model: Any, frames: int, flow_steps: int = 1) -> np.ndarray:
    """Seconds of every step [frames], after a voice prompt and a warm-up, on audio that is not silent."""
    from michiai.streaming_michiai import StreamState

    like = model.default_voice
    generator, state, spent = torch.Generator().manual_seed(0), StreamState(), []
    model.prompt(state, torch.zeros(1, 0, dtype=torch.long, device=like.device), like[None].to(model.dtype))
    for i in range(WARM_UP + frames):
        audio = (0.1 * torch.randn(1, model.config.frame_size, generator=generator)).to(
            like.device, model.dtype
        )
        noise = torch.randn(1, model.config.latent_dim, generator=generator).to(like.device, model.dtype)
        if like.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        model.step(audio, state, noise, flow_steps=flow_steps).audio.float().cpu()
        if i >= WARM_UP:
            spent.append(time.perf_counter() - began)
    return np.array(spent)


def measure(model: Any, frames: int, flow_steps: int = 1, threads: int = 1) -> dict:
    """Figures of one model on `threads` cores (or on its GPU)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        spent = time_steps(model, frames, flow_steps)
    finally:
        torch.set_num_threads(before)
    p50, p95, p99 = (float(np.percentile(spent, p)) * 1000 for p in (50, 95, 99))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(model.default_voice.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": threads,
        "flow_steps": flow_steps,
        "frames": frames,
        "step_ms_p50": p50,
        "step_ms_p95": p95,
        "step_ms_p99": p99,
        "rtf": float(spent.mean()) * model.config.frame_rate,
    }


def print_speed(rows: dict[str, dict]) -> None:
    """A table of `measure`'s figures by name."""
    print(
        table(
            ["model", "parameters", "where", "dtype", "flow steps", "p50 ms", "p95 ms", "p99 ms", "RTF"],
            [
                [
                    name,
                    f"{r['parameters'] / 1e6:.1f} M",
                    f"{r['device']}, {r['threads']} thread(s)",
                    r["dtype"],
                    r["flow_steps"],
                    f"{r['step_ms_p50']:.1f}",
                    f"{r['step_ms_p95']:.1f}",
                    f"{r['step_ms_p99']:.1f}",
                    f"{r['rtf']:.3f}",
                ]
                for name, r in rows.items()
            ],
        )
    )
