"""The kinds of facts that a context tells: their sentence, their questions and their values."""

from dataclasses import dataclass

from .held_out import pick
from .knowledge import CAPITALS, DAYS
from .words import DIGITS, FOODS, number

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
ITEMS = """
apple bag ball basket bike book boots bottle box cake camera cap chair clock coat cup desk doll dress drum
flag flute glove guitar hammer hat jacket jar kettle key knife lamp letter mirror mug necklace painting
parcel pen pencil phone photo piano picture pillow plate purse radio ring ruler scarf shirt soap spoon
suitcase sweater table tent ticket torch towel toy umbrella vase violin wallet watch whistle
""".split()
SPOTS = tuple(
    f"{p} the {x}"
    for p, xs in (
        (
            "in",
            "kitchen garden bathroom bedroom office cellar garage hall box car fridge bag cupboard basket",
        ),
        ("on", "table desk shelf chair sofa roof floor bed piano wall"),
        ("under", "bed table chair sofa carpet tree stairs"),
        ("behind", "door sofa curtain mirror house clock"),
        ("near", "window door lamp gate"),
    )
    for x in xs.split()
)
JOBS = """
baker builder cook dancer dentist doctor driver farmer gardener judge lawyer librarian nurse painter pilot
player plumber sailor singer soldier student teacher waiter writer
""".split()
COLOURS = "black blue brown green grey orange pink purple red silver white yellow".split()
SHOPS = """
bakery bank bar cafe church cinema gym hotel library market museum office park pool restaurant school shop
theatre zoo
""".split()
EVENTS = """
class concert dinner exam film game lesson lunch meeting party picnic race show walk wedding
""".split()
PETS = "bird cat dog fish goat horse mouse parrot pig rabbit snake turtle".split()
CODES = "code password pin".split()
VEHICLES = "boat bus ferry flight plane ship taxi train tram".split()


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
SUBJECTS = {"item": ITEMS, "city": CITIES, "shop": SHOPS, "event": EVENTS, "code": CODES, "vehicle": VEHICLES}


@dataclass(frozen=True)
class Relation:
    """A kind of fact: `{s}` is its subject (a name, or of SUBJECTS), `{v}` its value."""

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
        "departs",
        "vehicle",
        "time",
        "the {s} leaves at {v}",
        ("when does the {s} leave", "what time does the {s} leave", "at what time does the {s} leave"),
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
