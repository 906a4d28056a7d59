"""Scripts of dialogues: who says what and when, which questions are asked and how an answer is judged.

The domain is closed but combinatorial (README, "What it talks about"). Everything is spoken form:
lower-case words, numbers as words. What the test split asks (names, sums, sentences, question forms, context
values) the train split never holds.
"""

import numpy as np

from . import chat, facts
from .contexts import UNKNOWN_REPLIES, ask_about, context_text, make_facts
from .draft import TOPICS, Draft
from .exchange import Exchange
from .held_out import SPLITS, pick
from .knowledge import FORMS
from .pauses import with_pause
from .sayings import ASK_NAME, OUTSIDE, SMALLTALK, SPELL
from .script import Question, Script, Turn, is_right
from .words import TEST_NAMES, sentence_of

__all__ = ["BEHAVIOURS", "TOPICS", "Question", "Script", "Turn", "held_out", "is_right", "make_script"]

BEHAVIOURS = (
    "plain",
    "pause",
    "user_backchannel",
    "model_backchannel",
    "barge_in",
    "overlap",
    "silence",
    "noise",
    "echo",
    "context",
    "inject",
    "voice_change",
    "laugh",
    "unknown",
    "read",
)
WEIGHTS = np.cumsum((20, 10, 5, 3, 8, 4, 2, 2, 8, 16, 6, 3, 2, 6, 5)) / 100

BACKCHANNELS = ("yeah", "uh huh", "right", "okay", "mm hmm", "yes", "i see")
STOPS = ("stop", "okay stop", "stop please", "that is enough", "wait", "okay thank you")


def _some(rng: np.random.Generator) -> int:
    return 1 + int(rng.random() * 3)


def _plain(draft: Draft) -> None:
    if draft.topic == "context" or (draft.topic is None and draft.rng.random() < 0.15):
        draft.tell(1 + int(draft.rng.random() * 5))
    draft.chatter(_some(draft.rng))


def _pause(draft: Draft) -> None:
    rng = draft.rng
    if draft.topic == "context" or (draft.topic is None and rng.random() < 0.3):
        draft.tell(1 + int(rng.random() * 4))
    wanted, paused, tries = 1 + int(rng.random() * 2), 0, 0
    while paused < wanted and tries < 30:
        tries += 1
        exchange = draft.exchange()
        text = with_pause(rng, exchange.ask, hesitate=exchange.kind != "repeat")
        if text is None and (
            draft.queue or tries > 20
        ):  # the first half of a pair, or a topic of short phrases
            draft.ask(exchange)
        elif text is not None:
            draft.ask(exchange, text=text)
            paused += 1
    if draft.queue:
        draft.ask(draft.queue.pop(0))


def _user_backchannel(draft: Draft) -> None:
    draft.ask(draft.exchange(long=True))
    for _ in range(1 + (draft.rng.random() < 0.3)):
        draft.say("user", pick(draft.rng, BACKCHANNELS), "backchannel")
    if draft.rng.random() < 0.3:
        draft.ask(draft.exchange())


def _model_backchannel(draft: Draft) -> None:
    first, second, reply = chat.statement(draft.rng, draft.split)
    draft.say("user", f"{first} <pause> {second}")
    draft.say("model", "<hm>", "backchannel")
    draft.say("model", reply)
    if draft.rng.random() < 0.5:
        draft.ask(draft.exchange())


def _barge_in(draft: Draft) -> None:
    draft.ask(draft.exchange(long=True), judged=False)
    if draft.rng.random() < 0.25:
        draft.say("user", pick(draft.rng, STOPS), "interrupt")
        draft.say("model", "okay")
        if draft.rng.random() < 0.5:
            draft.ask(draft.exchange())
    else:
        draft.ask(draft.exchange(), timing="interrupt")


def _overlap(draft: Draft) -> None:
    draft.ask(draft.exchange())
    for _ in range(1 + int(draft.rng.random() * 2)):
        draft.ask(draft.exchange(), timing="overlap")


def _idle(draft: Draft) -> None:
    """Silence or noise: nobody asks anything, or one question and then a long wait."""
    draft.notes["idle"] = True
    draft.notes[draft.behaviour] = True
    if draft.rng.random() < 0.5:
        draft.ask(draft.exchange())


def _inject(draft: Draft) -> None:
    """Facts arrive between two turns; asked before, the model did not know them."""
    rng = draft.rng
    known = make_facts(rng, draft.split, 1 + int(rng.random() * 4))
    cut = int(rng.random() * len(known))  # the first ones stand in the context, the others are injected
    if rng.random() < 0.5:
        cut = 0
    new = known[cut:]
    draft.facts, draft.context = known[:cut], context_text(known[:cut])
    about = ask_about(rng, pick(rng, new))
    if rng.random() < 0.4:  # asked for too early
        draft.ask(
            Exchange(
                "unknown", about.ask, pick(rng, UNKNOWN_REPLIES), ("do not know", "don't know", "not sure")
            )
        )
    else:
        draft.ask(draft.exchange())
    draft.queue.clear()
    draft.injections.append((len(draft.turns), context_text(new)))
    draft.facts = known
    draft.ask(about)
    if rng.random() < 0.4:
        draft.ask(draft.exchange("context"))


def _noted(draft: Draft) -> None:
    draft.notes[draft.behaviour] = True
    _plain(draft)


def _echo(draft: Draft) -> None:
    """Its own voice comes back: from every other one a long answer, after every other one a long silence."""
    draft.notes |= {"echo": True, "idle": draft.rng.random() < 0.5}
    if draft.rng.random() < 0.5:
        draft.ask(draft.exchange(long=True))
    else:
        _plain(draft)


def _topic(draft: Draft) -> None:
    """A dialogue about the behaviour itself: laugh, unknown or context."""
    draft.topic = draft.behaviour
    rng = draft.rng
    if draft.behaviour == "context" or (draft.behaviour == "unknown" and rng.random() < 0.5):
        draft.tell(1 + int(rng.random() * 5))
    draft.topic = None if draft.behaviour == "context" else draft.topic
    draft.ask(draft.exchange(draft.behaviour))
    draft.topic = None
    draft.chatter(int(rng.random() * 3))


def _read(draft: Draft) -> None:
    """The model speaks alone, so that its voice meets many words."""
    roll = draft.rng.random()
    text = sentence_of(draft.rng, draft.split)
    if roll < 0.5:
        text = f"{text} {sentence_of(draft.rng, draft.split)}"
    if roll > 0.92:
        text = f"{pick(draft.rng, ('<breath>', '<laugh>', '<cough>'))} {text}"
    draft.say("model", text)


_MAKERS = {
    "plain": _plain,
    "pause": _pause,
    "user_backchannel": _user_backchannel,
    "model_backchannel": _model_backchannel,
    "barge_in": _barge_in,
    "overlap": _overlap,
    "silence": _idle,
    "noise": _idle,
    "echo": _echo,
    "context": _topic,
    "inject": _inject,
    "voice_change": _noted,
    "laugh": _topic,
    "unknown": _topic,
    "read": _read,
}


def make_script(
    rng: np.random.Generator, split: str, behaviour: str | None = None, topic: str | None = None
) -> Script:
    """A dialogue of 0-4 user turns.

    `topic` (a name in TOPICS) is what its short questions are about, except where the behaviour itself says
    what is asked (context, inject, laugh, unknown, read) or needs a long answer first.
    """
    if split not in SPLITS or (behaviour and behaviour not in BEHAVIOURS) or (topic and topic not in TOPICS):
        raise ValueError(
            f"no such split, behaviour or topic: {split!r}, {behaviour!r}, {topic!r}; "
            f"splits {SPLITS}, behaviours {BEHAVIOURS}, topics {tuple(TOPICS)}"
        )
    behaviour = behaviour or BEHAVIOURS[int(np.searchsorted(WEIGHTS, rng.random(), side="right"))]
    draft = Draft(rng, split, behaviour, topic)
    if topic == "context" and behaviour not in ("inject", "context", "read"):
        draft.tell(1 + int(rng.random() * 4))
    _MAKERS[behaviour](draft)
    return draft.script()


def held_out() -> dict:
    """For the manifest: what train never holds, beside sentences and context values held out by hash."""
    forms = {name: list(f["test"]) for name, f in FORMS.items()}
    forms |= {
        "outside": list(OUTSIDE["test"]),
        "name": list(ASK_NAME["test"]),
        "spell": list(SPELL["test"]),
        "smalltalk": [text for f, _, _ in SMALLTALK for text in f["test"]],
    }
    return {"names": list(TEST_NAMES), "forms": forms, **facts.held_out_pairs()}
