"""All evaluations of a model in one go: jobs over worker processes, one result.

Every job is (kind, index) and depends on (seed, kind, index) alone: the number of workers changes nothing.
"""

import multiprocessing
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from . import converse, duplex, quiet, voice
from .load import load_model
from .report import PARTS, bars
from .speed import measure
from .text import run_text

ASKED = {"converse", "hear", "say", "turn"}  # one pass over the questions serves all of these
KINDS = {  # of jobs whose rows hold all of a part's bars
    **dict.fromkeys(ASKED, {"question"}),
    "duplex": {"pause", "interrupt", "backchannel"},
    "quiet": {"silence", "noise", "echo"},
    "voice": {"voice"},
    "default": {"default"},
}
MANY_STEPS = 16
DRAWS = 1000  # of the bootstrap

_model: Any = None


def plan(parts: set[str], questions: int) -> list[tuple[str, int]]:
    """The jobs; the smaller parts grow with the number of questions."""
    counts: dict[str, int] = {}
    some = max(4, questions // 5)
    if parts & ASKED or "flow" in parts:
        counts["question"] = questions if parts & ASKED else some
    if "duplex" in parts:
        counts |= {"pause": some, "interrupt": some, "backchannel": max(4, questions // 8)}
    if "quiet" in parts:
        counts |= {
            "silence": max(4, questions // 10),
            "noise": max(4, questions // 10),
            "echo": max(4, questions // 8),
        }
    if "default" in parts:
        counts["default"] = max(4, 3 * questions // 10)
    if "voice" in parts:
        counts["voice"] = min(40, max(6, questions // 5))
    if "flow" in parts:
        counts["flow"] = min(some, questions)
    return [(kind, i) for kind, n in counts.items() for i in range(n)]


def run_job(model: Any, seed: int, kind: str, index: int) -> dict:
    """One job of `plan`."""
    if kind == "question":
        return converse.run_question(model, seed, index)
    if kind == "flow":
        return converse.run_question(model, seed, index, steps=MANY_STEPS)
    if kind in ("silence", "noise"):
        return quiet.run_idle(model, seed, index, noise=kind == "noise")
    runs = {
        "pause": duplex.run_pause,
        "interrupt": duplex.run_interrupt,
        "backchannel": duplex.run_backchannel,
        "echo": quiet.run_echo,
        "voice": voice.run_voice,
        "default": converse.run_default,
    }
    return runs[kind](model, seed, index)


def _load(path: str, form: str | None) -> Any:
    model = load_model(path)
    return model if form is None else model.optimize(form)


def _start(path: str, form: str | None = None) -> None:
    global _model
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    _model = _load(path, form)


def _work(seed: int, kind: str, index: int) -> tuple[str, int, dict]:
    return kind, index, run_job(_model, seed, kind, index)


def _results(
    path: str, jobs: list[tuple[str, int]], seed: int, workers: int, form: str | None
) -> Iterator[tuple[str, int, dict]]:
    if workers < 2:
        _start(path, form)
        yield from (_work(seed, *job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(path, form)) as pool:
        for future in as_completed([pool.submit(_work, seed, *job) for job in jobs]):
            yield future.result()


def run_jobs(
    path: str, jobs: list[tuple[str, int]], seed: int, workers: int, form: str | None = None
) -> dict[str, list[dict]]:
    """All rows by kind, in the order of their index."""
    found: dict[str, dict[int, dict]] = {}
    with tqdm(total=len(jobs), desc="evaluating", unit="conversation") as bar:
        for kind, index, row in _results(path, jobs, seed, workers, form):
            found.setdefault(kind, {})[index] = row
            bar.update()
    return {kind: [rows[i] for i in sorted(rows)] for kind, rows in found.items()}


def compare_flow(few: list[dict], many: list[dict]) -> dict:
    """One step beside many, on the same questions."""

    def figures(rows: list[dict]) -> dict:
        similar = [row["similarity"] for row in rows if "similarity" in row]
        return {
            "right": converse.share(rows, "right"),
            "wer": converse.rate(rows, "say_errors", "say_words"),
            "similarity": float(np.mean(similar)) if similar else None,
            "rtf": float(np.mean([row["spent"] for row in rows])),
        }

    return {"questions": len(many), "steps": {"1": figures(few[: len(many)]), str(MANY_STEPS): figures(many)}}


def figures(rows: dict[str, list[dict]], wanted: set[str]) -> dict[str, dict]:
    """Rows by kind of job -> figures by part."""
    found: dict[str, dict] = {}
    if wanted & ASKED:
        found |= converse.summarise(rows["question"])
    if "duplex" in wanted:
        found["duplex"] = duplex.summarise(rows["pause"], rows["interrupt"], rows["backchannel"])
    if "quiet" in wanted:
        found["quiet"] = quiet.summarise(rows["silence"], rows["noise"], rows["echo"])
    if "voice" in wanted:
        found["voice"] = voice.summarise(rows["voice"])
    if "default" in wanted:
        found["default"] = converse.said(rows["default"])
    if "flow" in wanted:
        found["flow"] = compare_flow(rows["question"], rows["flow"])
    return found


def _resampled(rows: dict[str, list[dict]], *others: dict[str, list[dict]]) -> Iterator[tuple[dict[str, list[dict]], ...]]:
    """DRAWS times as many conversations, drawn from these with replacement; from others the same ones."""
    rng = np.random.default_rng(0)
    for _ in range(DRAWS):
        drawn = {kind: rng.integers(len(found), size=len(found)) for kind, found in rows.items()}
        yield tuple({kind: [of[kind][i] for i in at] for kind, at in drawn.items()} for of in (rows, *others))


def _values(rows: dict[str, list[dict]], wanted: set[str]) -> dict[str, float]:
    return {bar.name: bar.value for bar in bars(figures(rows, wanted)) if bar.value is not None}


def _differences(rows: dict[str, list[dict]], before: dict[str, list[dict]], wanted: set[str]) -> dict[str, float]:
    now, then = _values(rows, wanted), _values(before, wanted)
    return {name: now[name] - then[name] for name in now.keys() & then.keys()}


def _intervals(drawn: Iterable[dict[str, float]]) -> dict[str, list[float]]:
    """In which 95 % of the values of each name lie: [low, high]."""
    found: dict[str, list[float]] = defaultdict(list)
    for values in drawn:
        for name, value in values.items():
            found[name].append(value)
    return {name: np.percentile(values, (2.5, 97.5)).tolist() for name, values in found.items()}


def spread(rows: dict[str, list[dict]], wanted: set[str]) -> dict[str, list[float]]:
    """Each bar's interval in which 95 % of resampled evaluations fall: the percentile bootstrap over conversations (Efron, 1979)."""
    return _intervals(_values(drawn, wanted) for (drawn,) in _resampled(rows))


def compare(rows: dict[str, list[dict]], before: dict[str, list[dict]], wanted: set[str]) -> dict[str, list[float]]:
    """How much each bar differs from that of another evaluation of the same conversations, and the interval of that: [difference,
    low, high], resampled in pairs. What was not measured there is left out.

    Raises:
        ValueError: the conversations are others.
    """
    common = {kind for kind, found in rows.items() if len(before.get(kind, ())) == len(found)}
    rows, before = ({kind: of[kind] for kind in common} for of in (rows, before))
    parts = {part for part in wanted & KINDS.keys() if KINDS[part] <= common}
    pairs = [pair for kind in common for pair in zip(rows[kind], before[kind], strict=True)]
    if not parts or any(a.get(name) != b.get(name) for a, b in pairs for name in ("asked", "voice")):
        raise ValueError("the other evaluation asked something else; expected the same --questions and --seed, and a part of both")
    intervals = _intervals(_differences(*drawn, parts) for drawn in _resampled(rows, before))
    return {name: [change, *intervals[name]] for name, change in _differences(rows, before, parts).items()}


def evaluate(
    path: str,
    *,
    parts: tuple[str, ...] = PARTS,
    questions: int = 200,
    seed: int = 0,
    workers: int = 2,
    text_checkpoint: str | None = None,
    form: str | None = None,
) -> tuple[dict, dict[str, list[dict]]]:
    """-> (figures by part, rows by kind of job), of the model optimised to `form`. Speed is measured last,
    when nothing else runs here."""
    began, wanted = time.perf_counter(), set(parts)
    rows = run_jobs(path, plan(wanted, questions), seed, workers, form)
    if "voice" in wanted:
        rows["voice"] = voice.compared(rows["voice"])
    result = {"seed": seed, "parts": list(parts), "optimize": form} | figures(rows, wanted)
    result["spread"] = spread(rows, wanted)
    if wanted & {"text", "speed"}:
        model = _load(path, form)
        if "text" in wanted:
            result["text"] = run_text(model, seed, text_checkpoint)
        if "speed" in wanted:
            result["speed"] = measure(model, 300)
    result["seconds"] = time.perf_counter() - began
    return result, rows
