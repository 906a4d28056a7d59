"""Facts told in the context or mid-session, questions about them, and the answer when they are absent."""

from dataclasses import dataclass

import numpy as np

from .exchange import Exchange
from .held_out import belongs, pick
from .relations import ALL_RELATIONS, SUBJECTS, VALUES, Relation
from .words import names_of

UNKNOWN_REPLIES = ("i do not know that", "i do not know that", "i am sorry i do not know")
UNKNOWN_ACCEPT = ("do not know", "don't know", "not sure")


@dataclass(frozen=True)
class Fact:
    relation: Relation
    subject: str
    value: str

    @property
    def text(self) -> str:
        return self.relation.tell.format(s=self.subject, v=self.value)


def make_fact(rng: np.random.Generator, split: str, relation: Relation) -> Fact:
    """A fact of this split: names, and (subject, value) pairs without one, are held out."""
    names = names_of(split)
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
