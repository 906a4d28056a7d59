"""Choose what the Space's browser test asks: run it again for every new checkpoint.

python scripts/choose_question.py            # writes tests/questions.json

Held-out questions of held-out voices are asked often, each time after another silence, which ends elsewhere within a frame.
Chosen are
- the question that is heard (HEARD of its words) and answered rightly most often, by text and then by the ear of the referee
  recogniser; none whose answer is that it does not know, which needs no hearing;
- the first long question and interruption after which the model falls silent within LATE every time.
Nothing is made easier for the model than for a visitor; how often it was right is written beside the choice.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from michiai.data.tts import RATE, synthesise
from michiai.evaluation.duplex import BARGE, sounding_until
from michiai.evaluation.items import Item, make_item
from michiai.evaluation.load import load_model
from michiai.evaluation.referees import at_rate, recognise
from michiai.evaluation.talk import at_model_rate, is_loud, script_of, talk

OUT = Path(__file__).resolve().parents[1] / "tests" / "questions.json"
SEED = 2026
LATE = 1.4  # seconds; the browser test allows 1.5, and its own path takes some
HEARD = 0.75  # the browser test asks for half of the words
OFFSETS = (0.31, 0.33, 1.35, 3.37, 6.39)  # seconds of silence before the question; the browser test's is over 6 s, and frames are 0.08 s


def spoken(item: Item, offset: float) -> np.ndarray:
    speech = synthesise(item.script.turns[0].text, item.user_voice).audio
    return np.concatenate([np.zeros(round(offset * RATE)), speech]).astype(np.float32)


def candidates(behaviour: str, count: int) -> list[Item]:
    """Items that a visitor can ask without preparing anything, and whose answer is not in the question."""
    items = (make_item(SEED, i, behaviour) for i in range(10_000))
    found = []
    for item in items:
        asked = item.script.turns[0].text.split()
        plain = (
            not item.script.context and not item.script.instructions and "<" not in item.script.turns[0].text
        )
        if (
            plain
            and item.question.kind != "unknown"
            and item.question.turn == (0 if behaviour == "plain" else 2)
            and not any(set(accept.split()) <= set(asked) for accept in item.question.accept)
        ):
            found.append(item)
        if len(found) == count:
            return found
    return found


def ask(model: Any, item: Item) -> dict:
    """How often the item is heard and answered rightly; after a wrong answer it is not asked again."""
    right = heard = 0
    for number, offset in enumerate(OFFSETS):
        reply = model.converse((spoken(item, offset), RATE), seed=number)
        asked = set(item.script.turns[0].text.split())
        if not item.right(reply.text) or len(asked & set(reply.user_text.split())) < HEARD * len(asked):
            break
        right += 1
        words = recognise(at_rate(reply.audio.numpy(), reply.sampling_rate))
        heard += item.right(" ".join(words))
    return {"right": right, "recognised": heard}


def interrupt(model: Any, item: Item) -> dict:
    """Seconds that the model goes on after the user's second question begins, at every offset."""
    stops = []
    for number, offset in enumerate(OFFSETS):
        second = synthesise(item.script.turns[2].text, item.user_voice)
        sound, lead = at_model_rate(second.audio, model.config.sampling_rate), second.words[0][1]
        script = script_of(model, spoken(item, offset))
        onset: list[float] = []

        def hear(
            i: int, frames: list, sound=sound, lead=lead, script=script, onset=onset
        ) -> np.ndarray | None:
            loud = [frame.index for frame in frames if is_loud(frame)]
            if not onset and loud and i - loud[0] >= BARGE * model.config.frame_rate:
                script.add(sound, i)
                onset.append(i / model.config.frame_rate + lead)
            late = onset and i / model.config.frame_rate > onset[0] + LATE + 0.5
            return None if late else script(i, frames)

        with torch.inference_mode():
            made = talk(model.session(seed=number), hear)
        end = sounding_until(made, onset[0]) if onset else None
        if end is None or end - onset[0] > LATE:
            return {"stops": [*stops, None]}
        stops.append(round(end - onset[0], 2))
    return {"stops": stops}


def describe(item: Item) -> dict:
    return {
        "voice": asdict(item.user_voice),
        "text": item.script.turns[0].text,
        "kind": item.question.kind,
        "accept": list(item.question.accept),
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", default=str(OUT.parents[1]), help="folder of a checkpoint")
    p.add_argument("--candidates", type=int, default=60, help="of each kind")
    p.add_argument("--only", choices=("question", "interruption"), help="choose one and keep the other")
    args = p.parse_args()
    torch.set_num_threads(1)
    model = load_model(args.model)
    chosen = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    if args.only != "interruption":
        asked = [(item, ask(model, item)) for item in tqdm(candidates("plain", args.candidates))]
        item, score = max(asked, key=lambda pair: (pair[1]["right"], pair[1]["recognised"]))
        always = sum(score["right"] == len(OFFSETS) for _, score in asked)
        chosen |= {"offsets": len(OFFSETS), "question": describe(item) | score}
        chosen["always_right"] = f"{always} of {len(asked)}"
    if args.only != "question":
        chosen.pop("interruption", None)
        chosen["interruptions_tried"] = 0
        for item in tqdm(candidates("barge_in", args.candidates // 2)):
            score = interrupt(model, item)
            chosen["interruptions_tried"] += 1
            if None not in score["stops"]:
                chosen["interruption"] = describe(item) | {"then": item.script.turns[2].text} | score
                break
    OUT.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(chosen))


if __name__ == "__main__":
    main()
