"""bench step: the time of one frame, where it goes, and how far above the machine's floor it is."""

import time
from typing import Any

import numpy as np
import torch

from .load import ROOT, load_model, random_model
from .report import table
from .speed import WORD_EVERY, Conversation, measure, percentiles, print_speed, threads

PRESET = ROOT / "configs" / "530m"
CONTEXT = 1000  # tokens of the prompt in the 530M's runs
PARTS = ("listen", "backbone", "speak_head", "vocoder")
TABLES = ("table, for a word heard", "table, after a word")


def bandwidth(n_threads: int, megabytes: int = 256, repeats: int = 8) -> float:
    """Bytes per second that a sum over an array larger than every cache reads."""
    with threads(n_threads):
        x = torch.ones(megabytes * 2**18)
        spent = []
        for _ in range(repeats):
            began = time.perf_counter()
            x.sum()
            spent.append(time.perf_counter() - began)
    return x.nbytes / float(np.median(spent))


def bytes_of(model: Any, context: int) -> dict[str, int]:
    """Bytes of weights that each part reads per frame, and of keys and values; the LLM's table of words is read for what was heard, if
    a word was, and for what comes next, after a word.
    """
    sizes = {}
    for part in PARTS:
        values = getattr(model, part).state_dict().items()
        tied = (
            part == "backbone" and model.config.tie_word_embeddings
        )  # the table is saved once or twice, read once
        sizes[part] = sum(v.nbytes for k, v in values if not (tied and k.endswith("lm_head.weight")))
    table = model.config.text_config.vocab_size * model.config.text_config.hidden_size * (1 if model.config.optimized else 4)
    sizes["backbone"] -= table
    sizes |= dict.fromkeys(TABLES, table)
    text, element = model.config.text_config, 2 if model.config.optimized else 4
    per_position = 2 * text.num_hidden_layers * text.num_key_value_heads * model.backbone.head_size * element
    sizes["keys and values"] = per_position * (context + 40 + model.config.text_window + model.config.window)
    return sizes


def time_parts(model: Any, frames: int, n_threads: int, context: int) -> dict[str, float]:
    """Seconds per frame of each part, run operation by operation from Python (a recorded frame cannot be
    cut).
    """
    spent = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = forward(*args, **kwargs)
            spent[part] += time.perf_counter() - began
            return result

        return run

    runner, model.runner = model.runner, None
    with threads(n_threads):
        conversation = Conversation(model, context)
        conversation.steps(2, warm_up=2)
        for part in PARTS:
            getattr(model, part).forward = timed(part, getattr(model, part).forward)
        conversation.steps(frames, warm_up=0)
    for part in PARTS:
        del getattr(model, part).forward
    model.runner = runner
    return {part: seconds / frames for part, seconds in spent.items()}


def first_audio(model: Any, sessions: int, n_threads: int, context: int) -> dict[str, float]:
    """TTFA (a): from the last sample of a session's first frame to the first sample of the answer frame."""
    spent = []
    with threads(n_threads):
        conversation = Conversation(model, context)
        prompted = conversation.state
        for _ in range(1 + sessions):  # in the first one the model may record its frame
            conversation.state = prompted.fork()
            spent.append(conversation.step())
    return percentiles(np.array(spent[1:]), "ttfa")


def answer_latency(model: Any) -> float | None:
    """TTFA (b): seconds from the end of the user's speech in examples/question.wav to the first sound that
    is not silent.
    """
    reply = model.converse(str(ROOT / "examples" / "question.wav"))
    level = 0.01  # -40 dB of full scale
    user, own = reply.user_audio.abs().numpy(), reply.audio.abs().numpy()
    if not (user > level).any():
        return None
    end = int(np.flatnonzero(user > level)[-1])
    after = np.flatnonzero(own[end:] > level)
    return float(after[0]) / reply.sampling_rate if len(after) else None


def profile(model: Any, frames: int, n_threads: int, context: int, figures: dict) -> list[dict]:
    """Part by part: time, bytes, and the floor that reading them at the measured bandwidth sets."""
    speed, sizes = bandwidth(n_threads), bytes_of(model, context)
    spent = time_parts(model, frames, n_threads, context)
    rows = [
        {
            "part": part,
            "megabytes": size / 1e6,
            "floor_ms": size / speed * 1e3,
            "ms": spent[part] * 1e3 if part in spent else None,
        }
        for part, size in sizes.items()
    ]
    mean = sum(size / WORD_EVERY if part in TABLES else size for part, size in sizes.items())
    ms = figures["rtf"] / model.config.frame_rate * 1e3
    rows.append({"part": "a step, on average", "megabytes": mean / 1e6, "floor_ms": mean / speed * 1e3, "ms": ms})
    print(f"\nread bandwidth with {n_threads} thread(s): {speed / 1e9:.1f} GB/s")
    print(
        table(
            ["part", "MB per frame", "floor ms", "ms"],
            [
                [
                    r["part"],
                    f"{r['megabytes']:.1f}",
                    f"{r['floor_ms']:.2f}",
                    f"{r['ms']:.2f}" if r["ms"] else "-",
                ]
                for r in rows
            ],
        )
    )
    return rows


def run(model_path: str, device: str, frames: int, quick: bool) -> dict:
    """All models, forms and thread counts; -> {"models": {...}, "profile": [...], "answer_latency_s":
    ...}.
    """
    rows, result = {}, {}

    def add(name: str, model: Any, count: int, context: int, n_threads: int) -> dict:
        row = measure(model, count, 1, n_threads, context)
        rows[name] = row | first_audio(model, 3 if quick else 10, n_threads, context)
        print(f"{name}: p50 {row['step_ms_p50']:.1f} ms, p95 {row['step_ms_p95']:.1f} ms", flush=True)
        return rows[name]

    counts, on_cpu = (1,) if quick or device != "cpu" else (1, 2), device == "cpu"
    nano = load_model(model_path, device)
    for form in ("eager", "cpu-int8") if on_cpu else ("eager", "cuda"):
        if form != "eager":
            nano.optimize(form)
        for n in counts:
            add(
                "nano" if n == 1 and form == "eager" else f"nano, {form}, {n}",
                nano,
                20 if quick else 300,
                0,
                n,
            )
    result["answer_latency_s"] = answer_latency(nano) if on_cpu and not quick else None
    if not quick:
        big = random_model(PRESET, device)
        for n in counts:
            add(f"530M, eager, {n}", big, 12 if on_cpu else 200, CONTEXT, n)
        big.optimize("cpu-int8" if on_cpu else "cuda")
        for n in counts:
            row = add(
                f"530M, {'cpu-int8' if on_cpu else 'cuda'}, {n}",
                big,
                frames if n == counts[-1] else 60,
                CONTEXT,
                n,
            )
        if on_cpu:
            result["profile"] = profile(big, 20, 2, CONTEXT, row)
        print("\nthe 530M's weights are random: speed does not depend on their values")
    print_speed(rows)
    return result | {"models": rows}
