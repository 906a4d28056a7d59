"""Facts told in the context or mid-session, questions about them, and the answer when they are absent."""

from dataclasses import dataclass

import numpy as np

from .exchange import Exchange
from .facts import CAPITALS, DAYS
from .held_out import belongs, pick
from .words import DIGITS, FOODS, TEST_NAMES, TRAIN_NAMES, number

UNKNOWN_REPLIES = ("i do not know that", "i do not know that", "i am sorry i do not know")
UNKNOWN_ACCEPT = ("do not know", "don't know", "not sure")

CITIES = tuple(CAPITALS.values()) + (
    "boston",
    "chicago",
    "dallas",
    "denver",
    "houston",
    "seattle",
    "york",
    "oxford",
    "cambridge",
)
ITEMS = (
    "apple bag ball basket bike book boots bottle box cake camera cap chair clock coat cup desk doll dress drum flag flute glove "
    "guitar hammer hat jacket jar kettle key knife lamp letter mirror mug necklace painting parcel pen pencil phone photo piano "
    "picture pillow plate purse radio ring ruler scarf shirt soap spoon suitcase sweater table tent ticket torch towel toy "
    "umbrella vase violin wallet watch whistle"
).split()
SPOTS = tuple(
    f"{p} the {x}"
    for p, xs in (
        (
            "in",
            "kitchen garden bathroom bedroom office cellar garage hall drawer box car fridge bag cupboard library basket",
        ),
        ("on", "table desk shelf chair sofa roof floor bed piano wall"),
        ("under", "bed table chair sofa carpet tree stairs"),
        ("behind", "door sofa curtain mirror house clock"),
        ("near", "window door lamp gate"),
    )
    for x in xs.split()
)
JOBS = (
    "baker builder cook dancer dentist doctor driver farmer gardener judge lawyer librarian nurse painter pilot player "
    "plumber sailor singer soldier student teacher waiter writer"
).split()
COLOURS = "black blue brown green grey orange pink purple red silver white yellow".split()
SHOPS = "bakery bank bar cafe church cinema gym hotel library market museum office park pool restaurant school shop theatre zoo".split()
EVENTS = (
    "class concert dinner exam film game lesson lunch meeting party picnic race show walk wedding".split()
)
PETS = "bird cat dog fish goat horse mouse parrot pig rabbit snake turtle".split()
CODES = "code password pin".split()


def _time(rng) -> str:
    hour = number(int(rng.integers(1, 13)))
    roll = rng.random()
    if roll < 0.6:
        return hour
    if roll < 0.65:
        return f"{hour} o'clock"
    return (
        f"{hour} {pick(rng, ('thirty', 'fifteen', 'forty five', 'twenty', 'ten'))}"
        if roll < 0.9
        else f"half past {hour}"
    )


VALUES = {
    "day": lambda rng: pick(rng, DAYS),
    "time": _time,
    "room": lambda rng: number(int(rng.integers(1, 100))),
    "price": lambda rng: number(int(rng.integers(2, 100))),
    "age": lambda rng: number(int(rng.integers(2, 96))),
    "few": lambda rng: number(int(rng.integers(2, 16))),
    "city": lambda rng: pick(rng, CITIES),
    "spot": lambda rng: pick(rng, SPOTS),
    "digits": lambda rng: " ".join(pick(rng, DIGITS) for _ in range(int(rng.integers(3, 5)))),
    "job": lambda rng: pick(rng, JOBS),
    "food": lambda rng: pick(rng, FOODS),
    "colour": lambda rng: pick(rng, COLOURS),
    "pet": lambda rng: pick(rng, PETS),
    "item": lambda rng: pick(rng, ITEMS),
}
SUBJECTS = {"item": ITEMS, "city": CITIES, "shop": SHOPS, "event": EVENTS, "code": CODES}


@dataclass(frozen=True)
class Relation:
    """A kind of fact: `{s}` is its subject (a name, or one of SUBJECTS), `{v}` its value; `reverse` asks for the subject."""

    name: str
    subject: str
    value: str
    tell: str
    ask: tuple[str, ...]
    reverse: tuple[str, ...] = ()


RELATIONS = (
    Relation(
        "leaves",
        "name",
        "day",
        "{s} leaves on {v}",
        ("when does {s} leave", "what day does {s} leave", "on which day does {s} leave"),
        ("who leaves on {v}",),
    ),
    Relation(
        "arrives",
        "name",
        "time",
        "{s} arrives at {v}",
        ("when does {s} arrive", "what time does {s} arrive", "at what time does {s} arrive"),
        ("who arrives at {v}",),
    ),
    Relation(
        "birthday",
        "name",
        "day",
        "the birthday of {s} is on {v}",
        ("when is the birthday of {s}", "what day is the birthday of {s}"),
    ),
    Relation(
        "meeting",
        "name",
        "time",
        "the meeting with {s} is at {v}",
        ("when is the meeting with {s}", "what time is the meeting with {s}"),
    ),
    Relation(
        "works",
        "name",
        "day",
        "{s} works on {v}",
        ("when does {s} work", "what day does {s} work"),
        ("who works on {v}",),
    ),
    Relation(
        "room",
        "name",
        "room",
        "{s} is in room {v}",
        ("which room is {s} in", "what room is {s} in", "in which room is {s}"),
        ("who is in room {v}",),
    ),
    Relation(
        "lives",
        "name",
        "city",
        "{s} lives in {v}",
        ("where does {s} live", "which city does {s} live in", "in which city does {s} live"),
        ("who lives in {v}",),
    ),
    Relation(
        "from",
        "name",
        "city",
        "{s} comes from {v}",
        ("where does {s} come from", "which city does {s} come from"),
        ("who comes from {v}",),
    ),
    Relation(
        "phone",
        "name",
        "digits",
        "the number of {s} is {v}",
        ("what is the number of {s}", "what is the phone number of {s}", "tell me the number of {s}"),
    ),
    Relation(
        "job",
        "name",
        "job",
        "{s} is a {v}",
        ("what is the job of {s}", "what does {s} do", "what job does {s} have"),
        ("who is a {v}",),
    ),
    Relation(
        "likes",
        "name",
        "food",
        "{s} likes {v}",
        ("what does {s} like", "which food does {s} like"),
        ("who likes {v}",),
    ),
    Relation(
        "age",
        "name",
        "age",
        "{s} is {v} years old",
        ("how old is {s}", "what is the age of {s}"),
        ("who is {v} years old",),
    ),
    Relation(
        "car",
        "name",
        "colour",
        "the car of {s} is {v}",
        ("what colour is the car of {s}", "which colour is the car of {s}"),
    ),
    Relation(
        "pet",
        "name",
        "pet",
        "{s} has a {v}",
        ("what pet does {s} have", "which animal does {s} have"),
        ("who has a {v}",),
    ),
    Relation(
        "brings",
        "name",
        "item",
        "{s} brings the {v}",
        ("what does {s} bring", "what will {s} bring"),
        ("who brings the {v}",),
    ),
    Relation(
        "costs",
        "item",
        "price",
        "the {s} costs {v} dollars",
        (
            "how much is the {s}",
            "what does the {s} cost",
            "how much does the {s} cost",
            "what is the price of the {s}",
        ),
    ),
    Relation(
        "where",
        "item",
        "spot",
        "the {s} is {v}",
        ("where is the {s}", "where can i find the {s}", "where did you see the {s}"),
    ),
    Relation(
        "colour",
        "item",
        "colour",
        "the {s} is {v}",
        ("what colour is the {s}", "which colour is the {s}"),
        (),
    ),
    Relation(
        "train",
        "city",
        "time",
        "the train to {s} leaves at {v}",
        ("when does the train to {s} leave", "what time is the train to {s}", "when is the train to {s}"),
    ),
    Relation(
        "platform",
        "city",
        "few",
        "the bus to {s} is number {v}",
        ("which bus goes to {s}", "what number is the bus to {s}", "which number is the bus to {s}"),
    ),
    Relation(
        "opens",
        "shop",
        "time",
        "the {s} opens at {v}",
        ("when does the {s} open", "what time does the {s} open"),
    ),
    Relation(
        "closes",
        "shop",
        "time",
        "the {s} closes at {v}",
        ("when does the {s} close", "what time does the {s} close"),
    ),
    Relation(
        "event",
        "event",
        "day",
        "the {s} is on {v}",
        ("when is the {s}", "what day is the {s}", "on which day is the {s}"),
    ),
    Relation(
        "event time",
        "event",
        "time",
        "the {s} starts at {v}",
        ("when does the {s} start", "what time does the {s} start"),
    ),
    Relation(
        "code", "code", "digits", "the {s} is {v}", ("what is the {s}", "tell me the {s}", "what's the {s}")
    ),
)
OWNER = Relation(
    "owner",
    "item",
    "name",
    "the {s} belongs to {v}",
    ("who owns the {s}", "whose {s} is it", "who does the {s} belong to"),
)
ALL_RELATIONS = RELATIONS + (OWNER,)


@dataclass(frozen=True)
class Fact:
    relation: Relation
    subject: str
    value: str

    @property
    def text(self) -> str:
        return self.relation.tell.format(s=self.subject, v=self.value)


def make_fact(rng: np.random.Generator, split: str, relation: Relation) -> Fact:
    """A fact of this split: test people are held-out people, and other (subject, value) pairs are held out by hash."""
    names = TRAIN_NAMES if split == "train" else TEST_NAMES
    if relation.subject == "name":
        return Fact(relation, pick(rng, names), VALUES[relation.value](rng))
    while True:
        subject = pick(rng, SUBJECTS[relation.subject])
        value = pick(rng, names) if relation.value == "name" else VALUES[relation.value](rng)
        if relation.value == "name" or belongs(f"{relation.name}|{subject}|{value}", split):
            return Fact(relation, subject, value)


def make_facts(rng: np.random.Generator, split: str, n: int) -> list[Fact]:
    """`n` facts; often two of one relation, so that the answer must be bound to its subject."""
    facts: list[Fact] = []
    while len(facts) < n:
        twin = facts and rng.random() < 0.5
        relation = facts[-1].relation if twin else pick(rng, ALL_RELATIONS)
        if len(facts) and not twin and rng.random() < 0.25:  # a second fact about the same person or thing
            same = [
                r
                for r in ALL_RELATIONS
                if r.subject == facts[-1].relation.subject and r is not facts[-1].relation
            ]
            relation = pick(rng, same) if same else relation
            new = make_fact(rng, split, relation)
            if relation.subject == "name":
                new = Fact(relation, facts[-1].subject, new.value)
        else:
            new = make_fact(rng, split, relation)
        if any(
            new.value == f.value
            or (new.relation is f.relation and new.subject == f.subject)
            or new.subject == f.value
            or new.value == f.subject
            for f in facts
        ):
            continue
        facts.append(new)
    for i in range(n - 1, 0, -1):
        j = int(rng.random() * (i + 1))
        facts[i], facts[j] = facts[j], facts[i]
    return facts


def ask_about(rng: np.random.Generator, fact: Fact) -> Exchange:
    """A question whose answer is `fact`: mostly its value, sometimes who it is about."""
    relation = fact.relation
    if relation.reverse and rng.random() < 0.25:
        return Exchange(
            "context", pick(rng, relation.reverse).format(v=fact.value), fact.text, (fact.subject,)
        )
    return Exchange("context", pick(rng, relation.ask).format(s=fact.subject), fact.text, (fact.value,))


def ask_absent(rng: np.random.Generator, split: str, facts: list[Fact]) -> Exchange:
    """A question like those about `facts`, to which none of them is the answer."""
    while True:
        near = facts and rng.random() < 0.6
        fact = make_fact(rng, split, pick(rng, facts).relation if near else pick(rng, ALL_RELATIONS))
        if (
            facts and fact.relation.subject == "name" and rng.random() < 0.3
        ):  # a known person, another question
            people = [f.subject for f in facts if f.relation.subject == "name"]
            fact = Fact(fact.relation, pick(rng, people), fact.value) if people else fact
        if not any(f.relation.name == fact.relation.name and f.subject == fact.subject for f in facts):
            break
    who = fact.relation.reverse and rng.random() < 0.2 and not any(f.value == fact.value for f in facts)
    if who:
        ask = pick(rng, fact.relation.reverse).format(v=fact.value)
        return Exchange("unknown", ask, pick(rng, UNKNOWN_REPLIES), UNKNOWN_ACCEPT)
    return Exchange(
        "unknown",
        pick(rng, fact.relation.ask).format(s=fact.subject),
        pick(rng, UNKNOWN_REPLIES),
        UNKNOWN_ACCEPT,
    )


def context_text(facts: list[Fact]) -> str:
    """The facts as context: sentences, each closed by " ."."""
    return " ".join(f"{fact.text} ." for fact in facts)
