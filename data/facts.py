"""Questions whose answers do not change: sums, counting, sequences and simple knowledge."""

import re

import numpy as np

from .exchange import Exchange
from .held_out import belongs, is_held_out, pick, pick_form
from .words import LETTERS, number

DAYS = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
MONTHS = tuple(
    "january february march april may june july august september october november december".split()
)
NUMBERS = tuple(number(n) for n in range(1, 21))
SEASONS = ("spring", "summer", "autumn", "winter")
CAPITALS = {
    "france": "paris",
    "england": "london",
    "germany": "berlin",
    "spain": "madrid",
    "italy": "rome",
    "portugal": "lisbon",
    "ireland": "dublin",
    "scotland": "edinburgh",
    "austria": "vienna",
    "greece": "athens",
    "poland": "warsaw",
    "russia": "moscow",
    "norway": "oslo",
    "sweden": "stockholm",
    "finland": "helsinki",
    "denmark": "copenhagen",
    "belgium": "brussels",
    "hungary": "budapest",
    "iceland": "reykjavik",
    "turkey": "ankara",
    "egypt": "cairo",
    "israel": "jerusalem",
    "iraq": "baghdad",
    "iran": "tehran",
    "india": "delhi",
    "china": "beijing",
    "japan": "tokyo",
    "thailand": "bangkok",
    "australia": "canberra",
    "canada": "ottawa",
    "cuba": "havana",
    "peru": "lima",
    "kenya": "nairobi",
    "america": "washington",
    "ukraine": "kiev",
    "romania": "bucharest",
    "lebanon": "beirut",
    "libya": "tripoli",
    "vietnam": "hanoi",
    "chile": "santiago",
}
OPPOSITES = tuple(
    tuple(pair.split())
    for pair in """
hot cold | big small | up down | left right | day night | black white | old new | fast slow |
happy sad | open closed | full empty | wet dry | hard soft | high low | light dark | good bad |
rich poor | early late | near far | loud quiet | strong weak | thick thin | clean dirty | young old
| first last | inside outside | true false | long short | easy difficult | push pull | buy sell |
win lose
""".split("|")
)
COLOURS = {
    "grass": "green",
    "the sky": "blue",
    "snow": "white",
    "a banana": "yellow",
    "blood": "red",
    "milk": "white",
    "coal": "black",
    "a lemon": "yellow",
    "a tomato": "red",
    "a carrot": "orange",
    "chocolate": "brown",
    "the sun": "yellow",
    "a strawberry": "red",
    "the sea": "blue",
    "a pumpkin": "orange",
    "salt": "white",
    "a frog": "green",
    "an elephant": "grey",
    "a crow": "black",
    "a cherry": "red",
    "a flamingo": "pink",
    "a plum": "purple",
}
SOUNDS = {
    "cow": "moo",
    "dog": "woof",
    "cat": "meow",
    "duck": "quack",
    "sheep": "baa",
    "pig": "grunt",
    "lion": "roar",
    "bee": "buzz",
    "snake": "hiss",
    "owl": "hoot",
    "horse": "neigh",
    "frog": "croak",
    "bird": "tweet",
    "mouse": "squeak",
}
LEGS = {
    "dog": 4,
    "cat": 4,
    "cow": 4,
    "horse": 4,
    "sheep": 4,
    "pig": 4,
    "goat": 4,
    "lion": 4,
    "mouse": 4,
    "elephant": 4,
    "bird": 2,
    "duck": 2,
    "chicken": 2,
    "owl": 2,
    "spider": 8,
    "ant": 6,
    "bee": 6,
    "fly": 6,
    "snake": 0,
    "fish": 0,
}

# {a} and {b} are filled in; the held-out forms stand in the test split alone
FORMS = {
    "sum": {
        "train": (
            "what is {e}",
            "what's {e}",
            "how much is {e}",
            "what does {e} make",
            "{e} is what",
            "work out {e}",
            "calculate {e}",
            "what do you get for {e}",
        ),
        "test": ("what does {e} give", "give me {e}"),
    },
    "next": {
        "train": (
            "what {k} comes after {a}",
            "what {k} is after {a}",
            "which {k} comes after {a}",
            "which {k} follows {a}",
            "what comes after {a}",
            "after {a} comes which {k}",
            "what is the next {k} after {a}",
        ),
        "test": ("which {k} is after {a}", "what {k} follows {a}"),
    },
    "before": {
        "train": (
            "what {k} comes before {a}",
            "what {k} is before {a}",
            "which {k} comes before {a}",
            "what comes before {a}",
            "before {a} comes which {k}",
            "what is the {k} before {a}",
        ),
        "test": ("which {k} is before {a}", "name the {k} before {a}"),
    },
    "capital": {
        "train": (
            "what is the capital of {a}",
            "what's the capital of {a}",
            "what city is the capital of {a}",
            "which city is the capital of {a}",
            "name the capital of {a}",
            "the capital of {a} is what",
            "what is the capital city of {a}",
        ),
        "test": ("which is the capital of {a}", "give me the capital of {a}"),
    },
    "opposite": {
        "train": (
            "what is the opposite of {a}",
            "what's the opposite of {a}",
            "what word is the opposite of {a}",
            "which word is the opposite of {a}",
            "the opposite of {a} is what",
            "name the opposite of {a}",
            "what is the reverse of {a}",
        ),
        "test": ("which is the opposite of {a}", "give me the opposite of {a}"),
    },
    "colour": {
        "train": (
            "what colour is {a}",
            "which colour is {a}",
            "what is the colour of {a}",
            "what's the colour of {a}",
            "name the colour of {a}",
            "what colour does {a} have",
            "{a} is what colour",
        ),
        "test": ("which colour does {a} have", "give me the colour of {a}"),
    },
    "sound": {
        "train": (
            "what does a {a} say",
            "what does the {a} say",
            "what sound does a {a} make",
            "what sound does the {a} make",
            "which sound does a {a} make",
            "what noise does a {a} make",
            "how does a {a} sound",
        ),
        "test": ("which noise does a {a} make", "how does the {a} sound"),
    },
    "legs": {
        "train": (
            "how many legs does a {a} have",
            "how many legs has a {a}",
            "how many legs does the {a} have",
            "a {a} has how many legs",
            "what number of legs does a {a} have",
            "count the legs of a {a}",
            "how many legs are there on a {a}",
        ),
        "test": ("how many legs are on a {a}", "the {a} has how many legs"),
    },
    "count": {
        "train": (
            "count from {a} to {b}",
            "please count from {a} to {b}",
            "can you count from {a} to {b}",
            "could you count from {a} to {b}",
            "count for me from {a} to {b}",
            "count up from {a} to {b}",
            "say the numbers from {a} to {b}",
        ),
        "test": ("tell me the numbers from {a} to {b}", "name the numbers from {a} to {b}"),
    },
    "sequence": {
        "train": (
            "say {a}",
            "please say {a}",
            "can you say {a}",
            "tell me {a}",
            "could you tell me {a}",
            "what are {a}",
            "i want to hear {a}",
        ),
        "test": ("go through {a}", "let me hear {a}"),
    },
}


def _mostly_known(rng: np.random.Generator, forms: dict[str, tuple[str, ...]], split: str) -> tuple[str, ...]:
    """The numbers are held out already, so most test questions ask for them in a known form."""
    return forms["test" if split == "test" and rng.random() < 0.3 else "train"]


def sums(rng: np.random.Generator, split: str) -> list[Exchange]:
    while True:
        word = pick(rng, ("plus", "plus", "minus", "minus", "times"))
        if word == "plus":
            a = int(rng.integers(0, 21))
            b = int(rng.integers(0, 21 - a))
            result = a + b
        elif word == "minus":
            a = int(rng.integers(0, 21))
            b = int(rng.integers(0, a + 1))
            result = a - b
        else:
            a, b = int(rng.integers(0, 11)), int(rng.integers(0, 11))
            result = a * b
        expression = f"{number(a)} {word} {number(b)}"
        # a result that stands in the question would make its repetition right
        if belongs(f"sum|{expression}", split) and result not in (a, b):
            break
    form = pick(rng, _mostly_known(rng, FORMS["sum"], split))
    return [
        Exchange("sum", form.format(e=expression), f"{expression} is {number(result)}", (number(result),))
    ]


def count(rng: np.random.Generator, split: str, long: bool = False) -> list[Exchange]:
    while True:
        a = int(rng.integers(1, 12))
        b = a + int(rng.integers(8, 16) if long else rng.integers(2, 10))
        if b <= 20 and belongs(f"count|{a} {b}", split, 12):
            break
    numbers = " ".join(number(n) for n in range(a, b + 1))
    ask = pick(rng, _mostly_known(rng, FORMS["count"], split)).format(a=number(a), b=number(b))
    return [Exchange("count", ask, numbers, (numbers,))]


SEQUENCES = {
    "the alphabet": " ".join(LETTERS),
    "the days of the week": " ".join(DAYS),
    "the days in order": " ".join(DAYS),
    "the months of the year": " ".join(MONTHS),
    "the months in order": " ".join(MONTHS),
    "the four seasons": " ".join(SEASONS),
}


def sequence(rng: np.random.Generator, split: str, long: bool = False) -> list[Exchange]:
    name = pick(rng, tuple(SEQUENCES)[: 5 if long else 6])
    return [
        Exchange(
            "sequence",
            pick_form(rng, FORMS["sequence"], split).format(a=name),
            SEQUENCES[name],
            (SEQUENCES[name],),
        )
    ]


def neighbours(
    rng: np.random.Generator, split: str, kind: str, series: tuple, circular: bool
) -> list[Exchange]:
    """What comes after, what before: one step in a series of (word, items)."""
    name, items = pick(rng, series)
    relation, step = pick(rng, (("next", 1), ("before", -1)))
    form = pick_form(rng, FORMS[relation], split)
    if not circular and "{k} after {a}" not in form and "{k} before {a}" not in form and rng.random() < 0.3:
        form = form.replace("{a}", "the {k} {a}")
    while True:
        i = int(rng.random() * len(items))
        if circular or 0 <= i + step < len(items):
            break
    a, b = items[i], items[(i + step) % len(items)]
    accept = (f"comes {b}", f"is {b}") if len(b) == 1 else (b,)  # the letter a is an article too
    reply = f"{'after' if step == 1 else 'before'} {a} comes {b}"
    return [Exchange(kind, form.format(k=name, a=a), reply, accept)]


def sizes(rng: np.random.Generator, split: str) -> list[Exchange]:
    whole, part, n = pick(rng, (("a week", "days", 7), ("a year", "months", 12), ("a year", "seasons", 4)))
    forms = {
        "train": (
            "how many {p} are in {w}",
            "how many {p} does {w} have",
            "how many {p} has {w}",
            "{w} has how many {p}",
            "what number of {p} does {w} have",
            "how many {p} are there in {w}",
        ),
        "test": ("how many {p} make {w}", "count the {p} in {w}"),
    }
    ask = pick_form(rng, forms, split).format(p=part, w=whole)
    return [Exchange("calendar", ask, f"{whole} has {number(n)} {part}", (number(n),))]


def calendar(rng: np.random.Generator, split: str) -> list[Exchange]:
    if rng.random() < 0.12:
        return sizes(rng, split)
    series = (("day", DAYS), ("day", DAYS), ("month", MONTHS), ("month", MONTHS), ("season", SEASONS))
    return neighbours(rng, split, "calendar", series, circular=True)


def order(rng: np.random.Generator, split: str) -> list[Exchange]:
    return neighbours(rng, split, "order", (("number", NUMBERS), ("letter", LETTERS)), circular=False)


def capital(rng: np.random.Generator, split: str) -> list[Exchange]:
    country = pick(rng, tuple(CAPITALS))
    ask = pick_form(rng, FORMS["capital"], split).format(a=country)
    return [
        Exchange("capital", ask, f"the capital of {country} is {CAPITALS[country]}", (CAPITALS[country],))
    ]


def opposite(rng: np.random.Generator, split: str) -> list[Exchange]:
    pair = pick(rng, OPPOSITES)
    a, b = pair if pair[1] == "old" or rng.random() < 0.5 else pair[::-1]
    accept = ("new", "young") if a == "old" else (b,)
    return [
        Exchange(
            "opposite",
            pick_form(rng, FORMS["opposite"], split).format(a=a),
            f"the opposite of {a} is {b}",
            accept,
        )
    ]


def colour(rng: np.random.Generator, split: str) -> list[Exchange]:
    thing = pick(rng, tuple(COLOURS))
    return [
        Exchange(
            "colour",
            pick_form(rng, FORMS["colour"], split).format(a=thing),
            f"{thing} is {COLOURS[thing]}",
            (COLOURS[thing],),
        )
    ]


def animal(rng: np.random.Generator, split: str) -> list[Exchange]:
    if rng.random() < 0.5:
        name = pick(rng, tuple(SOUNDS))
        return [
            Exchange(
                "animal",
                pick_form(rng, FORMS["sound"], split).format(a=name),
                f"the {name} says {SOUNDS[name]}",
                (SOUNDS[name],),
            )
        ]
    name = pick(rng, tuple(LEGS))
    legs = number(LEGS[name]) if LEGS[name] else "no"
    ask = pick_form(rng, FORMS["legs"], split).format(a=name)
    ask = re.sub(r"\ba (?=[aeiou])", "an ", ask)
    return [
        Exchange(
            "animal",
            ask,
            f"the {name} has {legs} legs",
            (f"{legs} legs", f"has {legs}") if legs == "no" else (legs,),
        )
    ]


def held_out_pairs() -> dict[str, list[str]]:
    """The sums and counting pairs that the training data never holds."""
    expressions = [f"{number(a)} plus {number(b)}" for a in range(21) for b in range(21 - a)]
    expressions += [f"{number(a)} minus {number(b)}" for a in range(21) for b in range(a + 1)]
    expressions += [f"{number(a)} times {number(b)}" for a in range(11) for b in range(11)]
    counts = [(a, b) for a in range(1, 12) for b in range(a + 2, 21)]
    return {
        "sums": [e for e in expressions if is_held_out(f"sum|{e}")],
        "counts": [f"{number(a)} to {number(b)}" for a, b in counts if is_held_out(f"count|{a} {b}", 12)],
    }
