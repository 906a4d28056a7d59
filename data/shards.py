"""Shards of dialogues: dialogue i depends on (seed, split, i) alone, whatever the number of workers.

SHARD.safetensors: audio int16 [2, total] (0 user, 1 model), offsets int64 [n + 1], reference int16 [total],
reference_offsets [n + 1]; SHARD.jsonl: one line per dialogue. A shard appears when it is complete; an
interrupted run goes on where it stopped.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import count
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from .grammar import Script, held_out, make_script
from .held_out import SPLITS
from .render import Dialogue, render
from .tts import RATE, held_out_voices

SHARD = 64  # dialogues
Wide = Callable[[np.random.Generator], Script]  # scripts beyond the domain, as of `wide.py`


def make_dialogue(
    seed: int, split: str, index: int, wide: Wide | None = None
) -> Dialogue:
    """Dialogue `index`, its script from the grammar or from `wide`; one too long for a dialogue is drawn again."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    while True:
        script = wide(rng) if wide else make_script(rng, split)
        dialogue = render(script, rng, split)
        if dialogue is not None:
            return dialogue


def record(dialogue: Dialogue, name: str) -> dict:
    """The JSON line of a dialogue; times in seconds, `questions[].turn` indexes `turns`."""
    script, place = dialogue.script, {t.index: k for k, t in enumerate(dialogue.turns)}
    return {
        "id": name,
        "behaviour": script.behaviour,
        "instructions": script.instructions,
        "context": script.context,
        "injections": dialogue.injections,
        "user_voice": " + ".join(v.id for v in dialogue.user_voices),
        "model_voice": dialogue.model_voice.id,
        "user_words": dialogue.words("user"),
        "model_words": dialogue.words("model"),
        "turns": [
            {"who": t.who, "start": t.start, "end": t.end, "text": t.text, "timing": t.timing}
            for t in dialogue.turns
        ],
        "questions": [
            {"turn": place[q.turn], "kind": q.kind, "accept": q.accept}
            for q in script.questions
            if q.turn in place and q.turn + 1 in place
        ],
    }


def _packed(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0] + [p.shape[-1] for p in pieces]).astype(np.int64)
    return np.round(np.concatenate(pieces, -1) * 32767).astype(np.int16), offsets


def write_shard(folder: Path, seed: int, split: str, number: int, wide: Wide | None = None) -> Path:
    """Renders and writes one shard; the audio file is renamed into place last."""
    numbers = range(number * SHARD, (number + 1) * SHARD)
    dialogues = [make_dialogue(seed, split, i, wide=wide) for i in numbers]
    audio, offsets = _packed([d.audio for d in dialogues])
    reference, reference_offsets = _packed([d.reference for d in dialogues])
    lines = [json.dumps(record(d, f"{split}-{seed}-{number * SHARD + k}")) for k, d in enumerate(dialogues)]
    table, path = folder / f"{number:05d}.jsonl", folder / f"{number:05d}.safetensors"
    temporary = folder / f"{number:05d}.tmp"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.rename(table)
    save_file(
        {"audio": audio, "offsets": offsets, "reference": reference, "reference_offsets": reference_offsets},
        temporary,
    )
    temporary.rename(path)
    return path


def shard_stats(path: Path) -> tuple[float, Counter]:
    """(hours, dialogues per behaviour) of a finished shard, read from its tables."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        hours = int(file.get_tensor("offsets")[-1]) / RATE / 3600
    lines = path.with_suffix(".jsonl").read_text().splitlines()
    return hours, Counter(json.loads(line)["behaviour"] for line in lines)


def write_manifest(folder: Path, seed: int, split: str) -> dict:
    """manifest.json: what the folder holds and what the train split never holds."""
    behaviours, hours, paths = Counter(), 0.0, sorted(folder.glob("[0-9]*.safetensors"))
    for path in paths:
        more, counted = shard_stats(path)
        hours, behaviours = hours + more, behaviours + counted
    manifest = {
        "seed": seed,
        "split": split,
        "sampling_rate": RATE,
        "shards": len(paths),
        "dialogues": sum(behaviours.values()),
        "hours": round(hours, 4),
        "behaviours": dict(sorted(behaviours.items())),
        "held_out": {"text": held_out(), "voices": held_out_voices()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def write_shards(
    folder: Path, hours: float, seed: int, split: str, workers: int, wide: Wide | None = None
) -> dict:
    """Shards 0, 1, ... until `hours` are there; returns the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    done, fresh, begin = 0.0, 0.0, time.perf_counter()
    numbers = count()
    with (
        ProcessPoolExecutor(workers) as pool,
        tqdm(
            total=hours,
            unit="h",
            bar_format="{l_bar}{bar}| {n:.2f}/{total:.1f} h [{elapsed}<{remaining}{postfix}]",
            mininterval=5,
        ) as bar,
    ):
        running = set()
        while done < hours or running:
            while done < hours and len(running) < workers:
                number = next(numbers)
                path = folder / f"{number:05d}.safetensors"
                if path.exists():
                    done += shard_stats(path)[0]
                    bar.update(min(done, hours) - bar.n)
                else:
                    running.add(pool.submit(write_shard, folder, seed, split, number, wide))
            finished, running = wait(running, return_when=FIRST_COMPLETED) if running else (set(), running)
            for future in finished:
                more = shard_stats(future.result())[0]
                done, fresh = done + more, fresh + more
                bar.set_postfix_str(f"{fresh * 3600 / (time.perf_counter() - begin):.0f} x real time")
                bar.update(min(done, hours) - bar.n)
            if finished:
                write_manifest(folder, seed, split)
    return write_manifest(folder, seed, split)
