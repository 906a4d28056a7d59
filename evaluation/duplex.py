"""Duplex: pauses inside turns, interruptions and backchannels of the user, in real time.

Definitions after Full-Duplex-Bench v1 and v1.5, reimplemented; all times are exact, from the rendering and
from the samples.
- pause: a turn or a sound that begins before the user has finished is a takeover
- interruption: the model has been sounding for BARGE seconds when the user speaks; `stop` is the time from
  the user's onset to the end of the model's stretch of sound (a silence of at least 0.3 s). The interrupted
  answers have 7 words or more: they do not end by chance
- backchannel: the same with "yeah"; the model goes on if it still sounds HOLD seconds later, or has said all
  of its answer
"""

from typing import Any

import numpy as np
import torch

from michiai.data.tts import synthesise

from .converse import share
from .items import Item, make_item
from .talk import Talk, at_model_rate, is_loud, open_session, script_of, talk

BARGE, HOLD = 1.2, 1.2


def run_pause(model: Any, seed: int, index: int) -> dict:
    """A question with one or two pauses in it."""
    item = make_item(seed, index, "pause")
    with torch.inference_mode():
        made = talk(open_session(model, item, seed), script_of(model, item.user))
    taken = any(start < item.end - 0.08 for start in [*made.starts(), *(a for a, _ in made.sounds())])
    return {
        "taken": taken,
        "right": item.right(made.text(item.asked_at)),
        "asked": item.script.turns[0].text,
        "answer": made.text(),
        "heard": made.user_text,
    }


def speak_into(session: Any, item: Item, text: str, after: float = BARGE) -> tuple[Talk, float | None]:
    """The item's first question, and `text` when the answer has sounded for `after` s -> (talk, its onset)."""
    config, speech = session.config, synthesise(text, item.user_voice)
    sound, lead = at_model_rate(speech.audio, config.sampling_rate), speech.words[0][1]
    script = script_of(session, item.user)
    first = round(item.end * config.frame_rate)
    onset: list[float] = []

    def hear(i: int, frames: list[Any]) -> np.ndarray | None:
        if not onset:
            loud = [frame.index for frame in frames[first:] if is_loud(frame)]
            if loud and i - loud[0] >= after * config.frame_rate:
                script.add(sound, i)
                onset.append(i / config.frame_rate + lead)
        return script(i, frames)

    with torch.inference_mode():
        made = talk(session, hear)
    return made, onset[0] if onset else None


def sounding_until(made: Talk, time: float) -> float | None:
    """End of the stretch of sound that holds `time`."""
    return next((b for a, b in made.sounds() if a <= time < b), None)


def run_interrupt(model: Any, seed: int, index: int) -> dict:
    """A long answer, interrupted by another question."""
    item = make_item(seed, index, "barge_in")
    text = item.script.turns[2].text
    made, onset = speak_into(open_session(model, item, seed), item, text)
    stop = None if onset is None else sounding_until(made, onset)
    row = {
        "asked": item.heard,
        "interruption": text,
        "answer": made.text(),
        "heard": made.user_text,
        "expected": list(item.question.accept),
        "measured": stop is not None,
    }
    if stop is not None:
        row |= {"stop": stop - onset, "right": item.right(made.text(onset + 0.3))}
    return row


def run_backchannel(model: Any, seed: int, index: int) -> dict:
    """A long answer, with a "yeah" of the user in it."""
    item = make_item(seed, index, "user_backchannel")
    text = item.script.turns[2].text
    made, onset = speak_into(open_session(model, item, seed), item, text)
    end = None if onset is None else sounding_until(made, onset)
    right = item.right(made.text())
    return {
        "measured": end is not None,
        "goes_on": end is not None and (right or end > onset + HOLD),
        "right": right,
        "asked": item.heard,
        "said": text,
        "answer": made.text(),
        "heard": made.user_text,
    }


def summarise(pauses: list[dict], interrupts: list[dict], backchannels: list[dict]) -> dict:
    """Rows of the three -> figures."""
    stops = [row["stop"] for row in interrupts if row["measured"]]
    measured = [row for row in interrupts if row["measured"]]
    answered = [row for row in backchannels if row["measured"]]
    return {
        "pauses": len(pauses),
        "pause_tor": share(pauses, "taken"),
        "pause_right": share(pauses, "right"),
        "interruptions": len(interrupts),
        "interrupted": len(measured),
        "stop_p50": float(np.median(stops)) if stops else None,
        "stopped_within_1s": float(np.mean([stop <= 1.0 for stop in stops])) if stops else None,
        "new_answer_right": share(measured, "right"),
        "backchannels": len(answered),
        "goes_on": share(answered, "goes_on"),
    }
