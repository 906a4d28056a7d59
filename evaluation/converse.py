"""Converse, hear, say and turn: the same held-out questions by voice and by text.

An answer is right by rule, from the script.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch

from michiai.data.tts import synthesise
from michiai.session_michiai import as_told

from .items import Item, in_default_voice, make_item
from .referees import embed_speaker, is_speech, recognise, whisper, whisper_errors, word_errors, words_of
from .talk import Talk, open_session, script_of, talk

PREMATURE = 0.08  # a turn that begins earlier than this before the user's end is premature


def answer_by_text(model: Any, item: Item) -> str:
    """The text LLM's greedy answer to the same words; earlier answers are its own."""
    told = as_told(model.config, item.script.instructions, item.script.context)
    prompt = [f"{mark} {text}" for mark, text in told.items()]
    answer = ""
    for turn in item.script.turns[: item.question.turn + 1]:
        if turn.who == "model":
            continue
        prompt.append(f"<user> {' '.join(word for word in turn.text.split() if word != '<pause>')} <turn>")
        ids = torch.tensor([model.tokenizer(" ".join(prompt), add_special_tokens=False)["input_ids"]])
        done = model.config.special_tokens["<done>"]
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=60, do_sample=False, eos_token_id=done
        )
        answer = model.tokenizer.decode(out[0, ids.shape[1] :]).split("<done>")[0].strip()
        prompt.append(f"{answer} <done>")
    return answer


def say_errors(text: str, sound: np.ndarray, item: Item) -> dict:
    """The recognisers' errors on the model's sound and on the teacher's, for the same words and voice."""
    words = words_of(text)
    if not words:
        return {}
    try:
        teacher = synthesise(" ".join(words), item.model_voice).audio
    except ValueError:  # not a word: no engine can say it
        return {}
    heard, teacher_heard = recognise(sound), recognise(teacher)
    row = {} if whisper() is None else whisper_errors(" ".join(words), {"whisper_errors": sound, "teacher_whisper_errors": teacher})
    return row | {
        "say_words": len(words),
        "say_errors": word_errors(words, heard),
        "say_heard": " ".join(heard),
        "teacher_errors": word_errors(words, teacher_heard),
    }


def turn_times(made: Talk, item: Item) -> dict:
    """When the answer began. The user's end is exact, from the rendering; sound is louder than -40 dB.

    `tor` is the takeover rate of Full-Duplex-Bench v1, for which a reply of under 1 s with at most 3 words is
    none. `taken` counts every answer with a word and a sound ("green" is a whole answer here) that did not
    begin while the user spoke.
    """
    since = item.asked_at if len(item.script.turns[: item.question.turn]) else 0.0
    begun = item.end - PREMATURE
    early = any(since <= start < begun for start in made.starts())
    after = [(a, b) for a, b in made.sounds() if a > begun]
    words = made.text(item.asked_at).split()
    taken = bool(after and words) and not early
    seconds = sum(b - a for a, b in after)
    return {
        "taken": taken,
        "premature": early,
        "latency": max(0.0, after[0][0] - item.end) if taken else None,
        "tor": bool(after and words) and not (seconds < 1 and len(words) <= 3),
    }


def run_question(model: Any, seed: int, index: int, *, steps: int = 1) -> dict:
    """One held-out question: the answers by voice and by text, and how the first sounds."""
    item = make_item(seed, index)
    with torch.inference_mode():
        made = talk(open_session(model, item, seed, flow_steps=steps), script_of(model, item.user))
    text = made.text(item.asked_at)
    hear = words_of(item.heard)
    row = {
        "topic": item.topic,
        "engine": item.user_voice.engine,
        "voice": item.user_voice.id,
        "noisy": item.noisy,
        "context": item.script.context,
        "asked": item.heard,
        "heard": made.user_text,
        "answer": text,
        "expected": list(item.question.accept),
        "right": item.right(text),
        "hear_words": len(hear),
        "hear_errors": word_errors(hear, words_of(made.user_text)),
    } | turn_times(made, item)
    row["spent"] = float(np.mean([frame.compute_seconds for frame in made.frames]) / made.step)
    row["text_answer"] = answer_by_text(model, item)
    row["text_right"] = item.right(row["text_answer"])
    return row | judge_sound(made, text, item)


def judge_sound(made: Talk, text: str, item: Item) -> dict:
    """How the answer sounds: its word errors, whether it is speech, and the likeness of a voice that was given."""
    sounds = [(a, b) for a, b in made.sounds() if b > item.asked_at]
    seconds = sounds[-1][1] - sounds[0][0] if sounds else 0.0
    if seconds <= 0.3:
        return {}
    sound = made.piece(sounds[0][0] - 0.05, sounds[-1][1] + 0.1)
    row = say_errors(text, sound, item) | {"speech": is_speech(sound)}
    if seconds > 0.8 and item.reference is not None:
        row["similarity"] = float(embed_speaker(sound) @ embed_speaker(item.reference))
    return row


def run_default(model: Any, seed: int, index: int) -> dict:
    """The question of the same index, answered in the model's default voice, which a visitor hears first."""
    item = in_default_voice(make_item(seed, index))
    with torch.inference_mode():
        made = talk(open_session(model, item, seed), script_of(model, item.user))
    text = made.text(item.asked_at)
    row = {"asked": item.heard, "voice": item.model_voice.id, "answer": text, "right": item.right(text)}
    return row | judge_sound(made, text, item)


def share(rows: list[dict], key: str) -> float | None:
    return float(np.mean([bool(row[key]) for row in rows])) if rows else None


def rate(rows: list[dict], errors: str, words: str) -> float | None:
    """Errors per word over all rows that have both."""
    rows = [row for row in rows if row.get(words)]
    return sum(row[errors] for row in rows) / sum(row[words] for row in rows) if rows else None


def groups(rows: list[dict], key: str) -> dict[str, list[dict]]:
    found = defaultdict(list)
    for row in rows:
        found[row[key]].append(row)
    return dict(found)


def said(rows: list[dict]) -> dict:
    """Word errors of the answers that were said, and of the TTS teacher."""
    spoken = [row for row in rows if row.get("say_words")]
    found = {
        "answers": len(spoken),
        "wer": rate(spoken, "say_errors", "say_words"),
        "teacher_wer": rate(spoken, "teacher_errors", "say_words"),
        "taken_for_speech": share([r for r in rows if "speech" in r], "speech"),
    }
    if any("whisper_words" in row for row in spoken):
        found["whisper_wer"] = rate(spoken, "whisper_errors", "whisper_words")
        found["teacher_whisper_wer"] = rate(spoken, "teacher_whisper_errors", "whisper_words")
    return found


def summarise(rows: list[dict]) -> dict[str, dict]:
    """Rows -> {"converse": ..., "hear": ..., "say": ..., "turn": ...}."""
    delays = [row["latency"] for row in rows if row["latency"] is not None]
    converse = {
        "questions": len(rows),
        "right_by_voice": share(rows, "right"),
        "right_by_text": share(rows, "text_right"),
        "right_clean": share([r for r in rows if not r["noisy"]], "right"),
        "right_noisy": share([r for r in rows if r["noisy"]], "right"),
        "topics": {
            name: {"n": len(g), "voice": share(g, "right"), "text": share(g, "text_right")}
            for name, g in groups(rows, "topic").items()
        },
    }
    hear = {
        "wer": rate(rows, "hear_errors", "hear_words"),
        "clean": rate([r for r in rows if not r["noisy"]], "hear_errors", "hear_words"),
        "noisy": rate([r for r in rows if r["noisy"]], "hear_errors", "hear_words"),
        "engines": {
            name: {"n": len(g), "wer": rate(g, "hear_errors", "hear_words")}
            for name, g in groups(rows, "engine").items()
        },
    }
    similar = [row["similarity"] for row in rows if "similarity" in row]
    say = said(rows)
    say["speaker_similarity"] = float(np.mean(similar)) if similar else None
    turn = {
        "turns": len(rows),
        "taken": share(rows, "taken"),
        "tor": share(rows, "tor"),
        "premature": share(rows, "premature"),
        "latency_p50": float(np.median(delays)) if delays else None,
        "latency_p95": float(np.percentile(delays, 95)) if delays else None,
    }
    return {"converse": converse, "hear": hear, "say": say, "turn": turn}
