"""A dialogue in the making."""

from collections.abc import Callable

import numpy as np

from . import chat, facts
from .contexts import ask_about, context_text, make_facts
from .exchange import Exchange
from .held_out import pick
from .script import Question, Script, Turn

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
        ("smalltalk", 9),
        ("persona", 8),
        ("sum", 14),
        ("count", 6),
        ("sequence", 2),
        ("calendar", 8),
        ("order", 6),
        ("capital", 6),
        ("opposite", 6),
        ("colour", 4),
        ("animal", 5),
        ("repeat", 15),
        ("spell", 18),
        ("slower", 1),
        ("laugh", 1),
        ("unknown", 6),
    )
    for _ in range(share)
)


class Draft:
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
        """The next question and answer, if possible a new one; a topic may make two that belong together."""
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
