"""Small talk, personas, repeating, spelling, laughing, and questions outside the domain."""

import numpy as np

from .contexts import UNKNOWN_ACCEPT, UNKNOWN_REPLIES, ask_absent
from .exchange import Exchange
from .held_out import pick, pick_form
from .relations import CITIES, ITEMS
from .sayings import (
    ASK_MY_NAME,
    ASK_NAME,
    ASK_ROLE,
    DEFAULT_NAME,
    LAUGH,
    OUTSIDE,
    REPEAT,
    ROLES,
    SLOWER,
    SMALLTALK,
    SPELL,
    SPELLABLE,
    SPELLABLE_NAMES,
    TELL_NAME,
)
from .words import ADJECTIVES, FOODS, PEOPLE, THINGS, names_of, sentence_of


def smalltalk(rng: np.random.Generator, split: str) -> list[Exchange]:
    if rng.random() < 0.2:
        name = pick(rng, names_of(split))
        return [
            Exchange(
                "smalltalk", pick_form(rng, TELL_NAME, split).format(n=name), f"nice to meet you {name}"
            ),
            Exchange("smalltalk", pick_form(rng, ASK_MY_NAME, split), f"your name is {name}", (name,)),
        ]
    forms, reply, accept = pick(rng, SMALLTALK)
    return [Exchange("smalltalk", pick_form(rng, forms, split), reply, accept)]


def persona(rng: np.random.Generator, split: str) -> tuple[str, str, str]:
    """(instructions, name, role): who the model is told to be; empty instructions make the default."""
    roll = rng.random()
    name, role = pick(rng, names_of(split)), pick(rng, ROLES)
    manner = pick(rng, ("", "", "kind ", "friendly ", "funny ", "clever ", "polite "))
    if roll < 0.4:
        return f"{pick(rng, ('your name is', 'you are', 'you are called'))} {name} .", name, ""
    if roll < 0.6:
        return f"you are a {manner}{role} .", "", role
    text = pick(
        rng,
        ("you are a {m}{r} named {n} .", "your name is {n} . you are a {m}{r} .", "you are {n} the {r} ."),
    )
    return text.format(m=manner, r=role, n=name), name, role


def ask_persona(rng: np.random.Generator, split: str, name: str, role: str) -> list[Exchange]:
    """Its name or its work; what the instructions leave open has a default."""
    if role and rng.random() < (0.5 if name else 0.8):
        return [Exchange("persona", pick_form(rng, ASK_ROLE, split), f"i am a {role}", (role,))]
    if not role and not name and rng.random() < 0.25:
        return [
            Exchange("persona", pick_form(rng, ASK_ROLE, split), "i am a voice helper", ("voice helper",))
        ]
    name = name or DEFAULT_NAME
    return [Exchange("persona", pick_form(rng, ASK_NAME, split), f"my name is {name}", (name,))]


def repeat(rng: np.random.Generator, split: str) -> list[Exchange]:
    text = sentence_of(rng, split)
    return [Exchange("repeat", pick_form(rng, REPEAT, "train").format(s=text), text, (text,))]


def spell(rng: np.random.Generator, split: str) -> list[Exchange]:
    """Its letters: knowledge, as capitals are, since a piece does not show how it is spelled; names are held out."""
    word = pick(rng, SPELLABLE if rng.random() < 0.5 else SPELLABLE_NAMES[split])
    letters = " ".join(word)
    return [Exchange("spell", pick_form(rng, SPELL, split).format(s=word), letters, (letters,))]


def slower(rng: np.random.Generator, split: str) -> list[Exchange]:
    return [Exchange("slower", pick_form(rng, SLOWER, split), "okay i will speak slowly", ("i will",))]


def laugh(rng: np.random.Generator, split: str) -> list[Exchange]:
    reply = pick(rng, ("<laugh> that is funny", "<laugh> that is funny", "<laugh> okay"))
    return [Exchange("laugh", pick_form(rng, LAUGH, split), reply, ("<laugh>",))]


def unknown(rng: np.random.Generator, split: str, facts: tuple = ()) -> list[Exchange]:
    """What it cannot know: outside the domain, or absent from what it was told."""
    if rng.random() < (0.6 if facts else 0.35):
        return [ask_absent(rng, split, list(facts))]
    form = pick_form(rng, OUTSIDE, split)
    ask = form.format(
        c=pick(rng, CITIES),
        d=pick(rng, CITIES),
        n=pick(rng, names_of(split)),
        t=pick(rng, THINGS if rng.random() < 0.7 else ITEMS),
        f=pick(rng, FOODS),
        a=pick(rng, ADJECTIVES),
        p=pick(rng, PEOPLE),
    )
    return [Exchange("unknown", ask, pick(rng, UNKNOWN_REPLIES), UNKNOWN_ACCEPT)]


def statement(rng: np.random.Generator, split: str) -> tuple[str, str, str]:
    """(first half, second half, reply): something the user tells at length."""
    first, second = sentence_of(rng, split), sentence_of(rng, split)
    start = pick(rng, ("i think", "you know", "i heard that", "listen", "i must tell you that", "guess what"))
    return (
        f"{start} {first}",
        f"{pick(rng, ('and', 'and then', 'but', 'because'))} {second}",
        pick(rng, ("that sounds nice", "i see")),
    )
