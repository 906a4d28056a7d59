"""Questions whose answers do not change: sums, counting, sequences and simple knowledge."""

import re

import numpy as np

from .exchange import Exchange
from .held_out import belongs, is_held_out, pick, pick_form
from .knowledge import CAPITALS, COLOURS, DAYS, FORMS, LEGS, MONTHS, NUMBERS, OPPOSITES, SEASONS, SOUNDS
from .words import LETTERS, number


def _mostly_known(rng: np.random.Generator, forms: dict[str, tuple[str, ...]], split: str) -> tuple[str, ...]:
    """The numbers are held out already, so most test questions ask for them in a known form."""
    return forms["test" if split == "test" and rng.random() < 0.3 else "train"]


def sums(rng: np.random.Generator, split: str) -> list[Exchange]:
    """Up to twenty, and products; half of training's go up to ninety nine: more than can be learned by heart."""
    top = 99 if split == "train" and rng.random() < 0.5 else 20
    while True:
        word = pick(rng, ("plus", "plus", "minus", "minus", "times"))
        if word == "plus":
            a = int(rng.integers(0, top + 1))
            b = int(rng.integers(0, top + 1 - a))
            result = a + b
        elif word == "minus":
            a = int(rng.integers(0, top + 1))
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
