"""Scripts of dialogues: who says what and when, which questions are asked and how an answer is judged.

The domain is closed but combinatorial (README, "What nano talks about"). Everything is spoken form: lower-case words, numbers
as words. What the test split asks (names, sums, sentences, question forms, context values) the train split never holds.
"""

from collections.abc import Callable

import numpy as np

from . import chat, facts
from .contexts import UNKNOWN_REPLIES, ask_about, context_text, make_facts
from .exchange import Exchange
from .held_out import SPLITS, pick
from .pauses import with_pause
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
WEIGHTS = np.cumsum((20, 10, 5, 3, 8, 4, 2, 2, 4, 16, 6, 3, 2, 6, 5)) / 96

TOPICS: dict[str, Callable] = {
    "smalltalk": chat.smalltalk,
    "persona": chat.ask_persona,
    "sum": facts.sums,
    "count": facts.count,
    "sequence": facts.sequence,
    "calendar": facts.calendar,
    "order": facts.order,
    "capital": facts.capital,
    "opposite": facts.opposite,
    "colour": facts.colour,
    "animal": facts.animal,
    "context": ask_about,
    "repeat": chat.repeat,
    "spell": chat.spell,
    "slower": chat.slower,
    "laugh": chat.laugh,
    "unknown": chat.unknown,
}
# shares of the questions of a dialogue without a given topic
MIX = tuple(
    name
    for name, share in (
        ("smalltalk", 10),
        ("persona", 6),
        ("sum", 16),
        ("count", 4),
        ("sequence", 2),
        ("calendar", 8),
        ("order", 4),
        ("capital", 8),
        ("opposite", 8),
        ("colour", 5),
        ("animal", 5),
        ("repeat", 10),
        ("spell", 5),
        ("slower", 1),
        ("laugh", 1),
        ("unknown", 7),
    )
    for _ in range(share)
)
BACKCHANNELS = ("yeah", "uh huh", "right", "okay", "mm hmm", "yes", "i see")
STOPS = ("stop", "okay stop", "stop please", "that is enough", "wait", "okay thank you")


class _Draft:
    """A script in the making: what is known so far and what was said."""

    def __init__(self, rng: np.random.Generator, split: str, behaviour: str, topic: str | None):
        self.rng, self.split, self.behaviour, self.topic = rng, split, behaviour, topic
        self.instructions = self.name = self.role = self.context = ""
        self.replies: set[str] = set()
        self.facts, self.queue, self.turns, self.questions, self.injections, self.notes = (
            [],
            [],
            [],
            [],
            [],
            {},
        )
        asked_who = topic == "persona"
        if rng.random() < (0.8 if asked_who else 0.3):
            self.instructions, self.name, self.role = chat.persona(rng, split)

    def tell(self, n: int) -> None:
        """Puts `n` facts into the context."""
        self.facts = make_facts(self.rng, self.split, n)
        self.context = context_text(self.facts)

    def exchange(self, topic: str | None = None, long: bool = False) -> Exchange:
        """The next question and answer, not asked before if that can be; a topic may make two that belong together."""
        if self.queue:
            return self.queue.pop(0)
        for _ in range(4):
            made = self.new_exchange(topic, long)
            if made.reply not in self.replies or made.kind == "unknown":
                break
        self.replies.add(made.reply)
        return made

    def new_exchange(self, topic: str | None, long: bool) -> Exchange:
        rng, split = self.rng, self.split
        if long:
            return pick(rng, (facts.count, facts.sequence))(rng, split, long=True)[0]
        topic = topic or self.topic
        if not topic:
            if self.facts and rng.random() < 0.8:
                topic = "unknown" if rng.random() < 0.15 else "context"
            else:
                topic = "persona" if self.instructions and rng.random() < 0.3 else pick(rng, MIX)
        if topic == "context" and self.facts:
            return ask_about(rng, pick(rng, self.facts))
        if topic == "persona":
            made = chat.ask_persona(rng, split, self.name, self.role)
        elif topic in ("unknown", "context"):  # nothing was told yet
            made = chat.unknown(rng, split, tuple(self.facts))
        else:
            made = TOPICS[topic](rng, split)
        self.queue = made[1:]
        return made[0]

    def say(self, who: str, text: str, timing: str = "after") -> None:
        self.turns.append(Turn(who, text, timing))

    def ask(
        self, exchange: Exchange, timing: str = "after", text: str | None = None, judged: bool = True
    ) -> None:
        """The user's turn and the model's answer."""
        if exchange.accept and judged:
            self.questions.append(Question(len(self.turns), exchange.kind, exchange.accept))
        self.say("user", text or self.lead_in(exchange.ask), timing)
        self.say("model", exchange.reply)

    def lead_in(self, ask: str) -> str:
        """Now and then a word or two before the question."""
        rng = self.rng
        if rng.random() > 0.2:
            return ask
        if ask.startswith(("what ", "which ", "who ")) and rng.random() < 0.4:
            return f"{pick(rng, ('tell me', 'please tell me', 'and', 'now tell me'))} {ask}"
        return f"{pick(rng, ('so', 'okay', 'now', 'um', 'well', 'and', 'hey', 'alright'))} {ask}"

    def chatter(self, n: int, **options) -> None:
        for _ in range(n):
            self.ask(self.exchange(), **options)
        while self.queue:
            self.ask(self.queue.pop(0))

    def script(self) -> Script:
        # texts that users give do not all end in a full stop
        if self.rng.random() < 0.5:
            self.instructions, self.context = (
                self.instructions.removesuffix(" ."),
                self.context.removesuffix(" ."),
            )
            self.injections = [(turn, text.removesuffix(" .")) for turn, text in self.injections]
        return Script(
            self.behaviour,
            self.instructions,
            self.context,
            tuple(self.turns),
            tuple(self.questions),
            tuple(self.injections),
            self.notes,
        )


def _some(rng: np.random.Generator) -> int:
    return 1 + int(rng.random() * 3)


def _plain(draft: _Draft) -> None:
    if draft.topic == "context" or (draft.topic is None and draft.rng.random() < 0.15):
        draft.tell(1 + int(draft.rng.random() * 5))
    draft.chatter(_some(draft.rng))


def _pause(draft: _Draft) -> None:
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


def _user_backchannel(draft: _Draft) -> None:
    draft.ask(draft.exchange(long=True))
    for _ in range(1 + (draft.rng.random() < 0.3)):
        draft.say("user", pick(draft.rng, BACKCHANNELS), "backchannel")
    if draft.rng.random() < 0.3:
        draft.ask(draft.exchange())


def _model_backchannel(draft: _Draft) -> None:
    first, second, reply = chat.statement(draft.rng, draft.split)
    draft.say("user", f"{first} <pause> {second}")
    draft.say("model", "<hm>", "backchannel")
    draft.say("model", reply)
    if draft.rng.random() < 0.5:
        draft.ask(draft.exchange())


def _barge_in(draft: _Draft) -> None:
    draft.ask(draft.exchange(long=True), judged=False)
    if draft.rng.random() < 0.25:
        draft.say("user", pick(draft.rng, STOPS), "interrupt")
        draft.say("model", "okay")
        if draft.rng.random() < 0.5:
            draft.ask(draft.exchange())
    else:
        draft.ask(draft.exchange(), timing="interrupt")


def _overlap(draft: _Draft) -> None:
    draft.ask(draft.exchange())
    for _ in range(1 + int(draft.rng.random() * 2)):
        draft.ask(draft.exchange(), timing="overlap")


def _idle(draft: _Draft) -> None:
    """Silence or noise: nobody asks anything, or one question and then a long wait."""
    draft.notes["idle"] = True
    draft.notes[draft.behaviour] = True
    if draft.rng.random() < 0.5:
        draft.ask(draft.exchange())


def _inject(draft: _Draft) -> None:
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


def _noted(draft: _Draft) -> None:
    draft.notes[draft.behaviour] = True
    _plain(draft)


def _topic(draft: _Draft) -> None:
    """A dialogue about the behaviour itself: laugh, unknown or context."""
    draft.topic = draft.behaviour
    rng = draft.rng
    if draft.behaviour == "context" or (draft.behaviour == "unknown" and rng.random() < 0.5):
        draft.tell(1 + int(rng.random() * 5))
    draft.topic = None if draft.behaviour == "context" else draft.topic
    draft.ask(draft.exchange(draft.behaviour))
    draft.topic = None
    draft.chatter(int(rng.random() * 3))


def _read(draft: _Draft) -> None:
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
    "echo": _noted,
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

    `topic` (a name in TOPICS) is what its short questions are about, except where the behaviour itself says what is asked
    (context, inject, laugh, unknown, read) or needs a long answer first.
    """
    if split not in SPLITS or (behaviour and behaviour not in BEHAVIOURS) or (topic and topic not in TOPICS):
        raise ValueError(
            f"no such split, behaviour or topic: {split!r}, {behaviour!r}, {topic!r}; "
            f"splits {SPLITS}, behaviours {BEHAVIOURS}, topics {tuple(TOPICS)}"
        )
    behaviour = behaviour or BEHAVIOURS[int(np.searchsorted(WEIGHTS, rng.random(), side="right"))]
    draft = _Draft(rng, split, behaviour, topic)
    if topic == "context" and behaviour not in ("inject", "context", "read"):
        draft.tell(1 + int(rng.random() * 4))
    _MAKERS[behaviour](draft)
    return draft.script()


def held_out() -> dict:
    """What the train split never holds, for the manifest; sentences and context values are held out by hash (held_out.py)."""
    forms = {name: list(f["test"]) for name, f in facts.FORMS.items()}
    forms |= {
        "outside": list(chat.OUTSIDE["test"]),
        "name": list(chat.ASK_NAME["test"]),
        "spell": list(chat.SPELL["test"]),
        "smalltalk": [text for f, _, _ in chat.SMALLTALK for text in f["test"]],
    }
    return {"names": list(TEST_NAMES), "forms": forms, **facts.held_out_pairs()}
