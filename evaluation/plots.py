"""A conversation as a picture: both waveforms, both texts at their times, and the turn gate."""

from pathlib import Path
from typing import Any

import numpy as np

PAPER, INK, USER, MICHI = "#dcd8e4", "#1d1a26", "#3c45c8", "#b01058"  # a paper that glares neither on a light page nor on a dark one


def words_at(frames: list[Any], name: str, step: float) -> list[tuple[float, str]]:
    """(seconds, word) of `text` or `user_text`; pieces of a word are joined."""
    words: list[tuple[float, str]] = []
    for frame in frames:
        piece = "".join(char for char in getattr(frame, name) if char.isprintable())
        if not piece:
            continue
        if words and not piece.startswith((" ", "<")):
            words[-1] = (words[-1][0], words[-1][1] + piece)
        else:
            words.append((frame.index * step, piece.strip()))
    return words


def _wave(
    axis: Any, audio: np.ndarray, rate: int, colour: str, label: str, words: list[tuple[float, str]]
) -> None:
    """The envelope of 10 ms pieces, and words above it on three heights so that they do not overlap."""
    hop = rate // 100
    peaks = np.abs(audio[: len(audio) // hop * hop].reshape(-1, hop)).max(1)
    top = max(0.05, float(peaks.max(initial=0)))
    axis.fill_between(np.arange(len(peaks)) / 100, -peaks, peaks, color=colour, linewidth=0)
    for i, (time, word) in enumerate(words):
        axis.text(time, top * (1.15 + 0.4 * (i % 3)), word, fontsize=9, color=colour)
        axis.plot([time, time], [0, top * 1.1], color=colour, linewidth=0.4, alpha=0.5)
    axis.set_ylim(-1.1 * top, 2.5 * top)
    axis.set_yticks([])
    axis.set_ylabel(label, color=colour)
    axis.spines[:].set_visible(False)
    axis.tick_params(bottom=False)


def plot_reply(reply: Any, path: str | Path) -> None:
    """Write a PNG of a `Reply`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rate = reply.sampling_rate
    step = len(reply.frames[0].audio) / rate
    times = np.array([frame.index * step for frame in reply.frames])
    figure = Figure(figsize=(max(9.0, 1.1 * times[-1]), 5.2), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.4])
    _wave(top, reply.user_audio.numpy(), rate, USER, "user", words_at(reply.frames, "user_text", step))
    _wave(middle, reply.audio.numpy(), rate, MICHI, "MichiAI", words_at(reply.frames, "text", step))
    bottom.step(
        times,
        [frame.turn_probability for frame in reply.frames],
        where="post",
        color=INK,
        label="the user has finished",
    )
    bottom.fill_between(
        times,
        0,
        1,
        where=[frame.speaking for frame in reply.frames],
        step="post",
        color=MICHI,
        alpha=0.2,
        label="MichiAI's turn",
    )
    bottom.set_ylim(-0.05, 1.05)
    bottom.set_yticks([0, 1])
    bottom.set_xlabel("seconds")
    bottom.spines[["top", "right"]].set_visible(False)
    bottom.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9, frameon=False)
    bottom.set_xlim(0, times[-1] + step)
    for axis in (top, middle, bottom):
        axis.set_facecolor("none")
    figure.savefig(path, dpi=110)
