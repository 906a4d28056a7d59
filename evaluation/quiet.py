"""Quiet: 10 s of silence, of noise and of its own echo, through which the model should not speak."""

from typing import Any

import numpy as np
import torch

from michiai.data.augment import knocks, noise_of

from .converse import share
from .items import RATE, make_item, rng_of
from .talk import at_model_rate, open_session, script_of, talk

SECONDS = 10.0
COLOURS = ("white", "pink", "brown", "hum")


def run_idle(model: Any, seed: int, index: int, *, noise: bool) -> dict:
    """Nothing is said: digital silence or a faint hiss, or noise of -50 to -25 dB with knocks."""
    rng = rng_of(seed, "noise" if noise else "silence", index)
    n = int(SECONDS * RATE)
    if noise:
        user = noise_of(COLOURS[index % len(COLOURS)], n, rng, None) * 10 ** (
            rng.uniform(-50, -25) / 20
        ) + 0.1 * knocks(n, rng)
    else:
        user = rng.standard_normal(n) * (0 if index % 2 else 10 ** (rng.uniform(-80, -60) / 20))
    rate, size = model.config.sampling_rate, model.config.frame_size
    user = at_model_rate(user.astype(np.float32), rate)

    def hear(i: int, frames: list[Any]) -> np.ndarray | None:
        piece = user[i * size : (i + 1) * size]
        return piece if len(piece) == size else None

    with torch.inference_mode():
        made = talk(model.session(seed=seed + index), hear)
    return {
        "quiet": not made.starts() and not made.sounds(),
        "turns": len(made.starts()),
        "answer": made.text(),
        "heard": made.user_text,
        "level": float(np.sqrt((made.audio**2).mean())),
    }


def run_echo(model: Any, seed: int, index: int) -> dict:
    """The model's answer comes back through the microphone, 100-400 ms later at gain 0.1-0.3; then 10 s more.

    Quiet: the answer is the only turn after the question, and nothing sounds after it.
    """
    item = make_item(
        seed, index, ("user_backchannel", "plain")[index % 2]
    )  # every other answer is a long one
    rng = rng_of(seed, "echo", index)
    size, rate = model.config.frame_size, model.config.sampling_rate
    gain, delay = rng.uniform(0.1, 0.3), int(rng.uniform(0.1, 0.4) * rate)
    script = script_of(model, item.user, patience=SECONDS)

    def hear(i: int, frames: list[Any]) -> np.ndarray | None:
        user = script(i, frames)
        if user is None or not frames:
            return user
        own = torch.cat([frame.audio for frame in frames[-(delay // size + 2) :]]).numpy()
        own = np.pad(own, (size * (delay // size + 2) - len(own), 0))
        first = len(own) - delay
        return user + gain * own[first : first + size]

    with torch.inference_mode():
        made = talk(open_session(model, item, seed), hear)
    starts = [start for start in made.starts() if start > item.end - 0.08]
    over = next(
        (
            f.index * made.step
            for f in made.frames
            if f.index * made.step > item.end
            and not f.speaking
            and any(g.speaking for g in made.frames[max(0, f.index - 1) : f.index])
        ),
        None,
    )
    late = over is not None and any(a > over + 0.5 for a, _ in made.sounds())
    return {
        "quiet": len(starts) <= 1 and not late,
        "right": item.right(made.text(item.asked_at)),
        "gain": gain,
        "answer": made.text(),
        "heard": made.user_text,
        "asked": item.heard,
    }


def summarise(silence: list[dict], noise: list[dict], echo: list[dict]) -> dict:
    """Rows -> shares of quiet stretches."""
    return {
        "silence": share(silence, "quiet"),
        "noise": share(noise, "quiet"),
        "echo": share(echo, "quiet"),
        "all": share(silence + noise + echo, "quiet"),
        "stretches": len(silence + noise + echo),
        "echo_right": share(echo, "right"),
    }
