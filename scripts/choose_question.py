"""Choose what the Space's browser test asks: run it again for every new checkpoint.

python scripts/choose_question.py            # writes tests/questions.json

Held-out questions of held-out voices are asked often, each time after another silence, which ends elsewhere within a frame.
Chosen are
- the question that is heard (HEARD of its words) and answered rightly most often, by text and then by the ear of the referee
  recogniser; none whose answer is that it does not know, which needs no hearing;
- the long question and interruption, each time at another moment of the answer, after which the model falls silent soonest at worst, if
  that is within LATE.
Nothing is made easier for the model than for a visitor; how often it was right is written beside the choice.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from michiai.data.tts import RATE, synthesise
from michiai.evaluation.duplex import BARGE, sounding_until, speak_into
from michiai.evaluation.items import Item, Span, make_item
from michiai.evaluation.load import load_model
from michiai.evaluation.referees import at_rate, recognise
from michiai.evaluation.talk import script_of, talk

OUT = Path(__file__).resolve().parents[1] / "tests" / "questions.json"
SEED = 2026
LATE = 1.1  # seconds; the browser test allows 1.5, and its own path takes a third of one
HEARD = 0.75  # the browser test asks for half of the words
OFFSETS = (0.31, 0.33, 1.35, 3.37, 6.39)  # seconds of silence before the question; the browser test's is over 6 s, and frames are 0.08 s
AFTER = (BARGE, 1.5, 1.8, 2.1, 2.4)  # seconds that the answer has sounded when it is interrupted; in the browser about 1.9


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


def interrupt(model: Any, item: Item, limit: float) -> list[float]:
    """Seconds that the model goes on after the user's second question begins, every time.

    Nothing if once they are `limit` or more, or if the answer alone would not last.
    """
    with torch.inference_mode():
        sounds = talk(model.session(), script_of(model, spoken(item, OFFSETS[0]))).sounds()
    if not sounds or sounds[0][1] - sounds[0][0] < AFTER[-1] + LATE + 1:
        return []
    stops: list[float] = []
    for seed, (offset, after) in enumerate(zip(OFFSETS, AFTER, strict=True)):
        first = spoken(item, offset)
        asked = replace(item, user=first, spans=(Span(offset, len(first) / RATE, item.script.turns[0].text),))
        made, onset = speak_into(model.session(seed=seed), asked, item.script.turns[2].text, after)
        end = None if onset is None else sounding_until(made, onset)
        if onset is None or end is None or end - onset >= limit:
            return []
        stops.append(round(float(end - onset), 2))
    return stops


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
        limit = LATE
        for item in tqdm(candidates("barge_in", args.candidates // 2)):
            if stops := interrupt(model, item, limit):
                chosen["interruption"] = describe(item) | {"then": item.script.turns[2].text, "stops": stops}
                limit = max(stops)
    OUT.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(chosen))


if __name__ == "__main__":
    main()
