"""The scripts: nothing held out in training, answers judged fairly, the same words from the same seed."""

import re

import numpy as np
import pytest

from michiai.configuration_michiai import SPECIAL_TOKENS
from michiai.data import facts, sayings
from michiai.data.grammar import BEHAVIOURS, TOPICS, Question, held_out, is_right, make_script
from michiai.data.held_out import is_held_out
from michiai.data.knowledge import FORMS
from michiai.data.pauses import is_open
from michiai.data.text import dialogue_text, without_pauses
from michiai.data.words import TENS, TEST_NAMES, names_of


def scripts(split: str, n: int, seed: int = 0, **options):
    rng = np.random.default_rng(seed)
    return [make_script(rng, split, **options) for _ in range(n)]


@pytest.fixture(scope="module")
def train_scripts():
    return scripts("train", 3000)


def all_text(script) -> str:
    injected = " ".join(text for _, text in script.injections)
    return " ".join(
        [script.instructions, script.context, injected, *(without_pauses(t.text) for t in script.turns)]
    )


def test_held_out_names_are_never_trained_on(train_scripts):
    assert not set(TEST_NAMES) & set(names_of("train"))
    words = {word for script in train_scripts for word in all_text(script).split()}
    assert not words & set(TEST_NAMES)


def test_held_out_sums_and_counts_are_never_trained_on(train_scripts):
    pairs = held_out()
    assert len(pairs["sums"]) > 30 and len(pairs["counts"]) > 8
    # as whole phrases: "three plus four" also stands in "thirty three plus four", another sum
    tens = "".join(f"(?<!{word} )" for word in TENS if word)
    sums = re.compile("|".join(rf"\b{tens}{e}\b" for e in pairs["sums"]))
    counts = {f"from {e}$" for e in pairs["counts"]}
    for script in train_scripts:
        for turn in script.turns:
            text = without_pauses(turn.text)
            assert not sums.search(text), text
            assert not any(re.search(c, text) for c in counts), text


def test_held_out_forms_are_never_trained_on(train_scripts):
    forms = [
        re.compile(r"\b" + re.sub(r"\\\{\w\\\}", r"\\w+( \\w+)?", re.escape(form)) + "$")
        for name, group in FORMS.items()
        if name not in ("sum", "count")
        for form in group["test"]
    ]
    forms += [
        re.compile(re.escape(form) + "$") for group, _, _ in sayings.SMALLTALK for form in group["test"]
    ]
    asked = {without_pauses(t.text) for script in train_scripts for t in script.turns if t.who == "user"}
    assert not [(form.pattern, text) for form in forms for text in asked if form.search(text)]


def test_held_out_forms_are_other_phrasing_not_other_words(train_scripts):
    """Else what is measured is whether a word was ever met, which no phrasing teaches."""
    groups = [*FORMS.values(), *(group for group, _, _ in sayings.SMALLTALK), sayings.OUTSIDE, sayings.SPELL, sayings.SLOWER, sayings.LAUGH]
    groups += [sayings.ASK_NAME, sayings.ASK_ROLE, sayings.TELL_NAME, sayings.ASK_MY_NAME, sayings.REPEAT]
    forms = " ".join(form for group in groups for form in group["test"])
    said = {word for script in train_scripts for turn in script.turns for word in turn.text.split()}
    assert set(re.sub(r"{\w}", "", forms).split()) <= said


def test_held_out_context_pairs_and_sentences(train_scripts):
    for split, wanted in (("train", False), ("test", True)):
        for script in scripts(split, 300, topic="repeat", behaviour="plain"):
            assert all(is_held_out(f"sentence|{q.accept[0]}") == wanted for q in script.questions)
    for script in train_scripts:
        for s, v in re.findall(r"the train to (\w+) leaves at ([^.]+?)(?: \.|$)", script.context):
            assert not is_held_out(f"train|{s}|{v}")


def test_every_fact_topic_has_enough_forms():
    for name, group in FORMS.items():
        assert len(group["train"]) >= 6 and len(group["test"]) == 2, name
        assert not set(group["train"]) & set(group["test"]), name


@pytest.mark.parametrize("split", ["train", "test"])
def test_own_answers_are_right_and_questions_are_not(split):
    for script in scripts(split, 2000, seed=1):
        for question in script.questions:
            replies = [t.text for t in script.turns[question.turn + 1 :] if t.who == "model"]
            assert is_right(question, replies[0]), (question, replies[0])
            assert not is_right(question, without_pauses(script.turns[question.turn].text)), question
            assert not is_right(question, "") and not is_right(question, "hm")


@pytest.mark.parametrize(
    ("kind", "accept", "reply", "right"),
    [
        ("sum", "twelve", "Seven plus five is twelve.", True),
        ("sum", "twenty", "that is twenty one", False),
        ("sum", "one", "that is twenty one", False),
        ("context", "nine", "it leaves at nine thirty", False),
        ("context", "nine", "at half past nine", False),
        ("context", "friday", "on friday i think", True),
        ("context", "five two", "five two one", False),
        ("spell", "c a t", "c a t", True),
        ("spell", "c a t", "c a t s", False),
        ("spell", "c a t", "cat", False),
        ("repeat", "the bus is late", "<breath> the bus is late", True),
        ("repeat", "the bus is late", "say the bus is late", False),
        ("unknown", "don't know", "I don’t know that.", True),
        ("laugh", "<laugh>", "<laugh> that is funny", True),
    ],
)
def test_is_right(kind, accept, reply, right):
    assert is_right(Question(0, kind, (accept,)), reply) is right


def test_same_seed_same_scripts():
    assert scripts("train", 200, seed=3) == scripts("train", 200, seed=3)
    assert scripts("train", 200, seed=3) != scripts("train", 200, seed=4)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_behaviours_and_topics(behaviour):
    for split in ("train", "test"):
        for topic in (None, *TOPICS):
            for script in scripts(split, 8, topic=topic, behaviour=behaviour):
                assert script.behaviour == behaviour
                assert len([t for t in script.turns if t.who == "user" and t.timing != "backchannel"]) <= 7
                assert all(0 <= turn <= len(script.turns) for turn, _ in script.injections)
                assert re.fullmatch(r"[a-z' .<>]*", all_text(script)), all_text(script)


def test_behaviours_hold_what_they_promise():
    timings = {
        "barge_in": "interrupt",
        "overlap": "overlap",
        "user_backchannel": "backchannel",
        "model_backchannel": "backchannel",
    }
    for behaviour, timing in timings.items():
        assert all(timing in [t.timing for t in s.turns] for s in scripts("train", 50, behaviour=behaviour))
    assert all(s.injections for s in scripts("train", 50, behaviour="inject"))
    assert all(s.context for s in scripts("train", 50, behaviour="context"))
    assert all(
        "<pause>" in " ".join(t.text for t in s.turns)
        for s in scripts("train", 200, behaviour="pause", topic="sum")
    )


def test_pauses_stand_where_nothing_is_complete():
    for script in scripts("train", 500, behaviour="pause"):
        for turn in script.turns:
            words = [w for w in turn.text.split() if w not in ("um", "uh", "er")]
            for i in [i for i, w in enumerate(words) if w == "<pause>"]:
                assert is_open([w for w in words[:i] if w != "<pause>"]), turn.text


def test_wrong_names_are_told():
    with pytest.raises(ValueError, match="behaviours"):
        make_script(np.random.default_rng(0), "train", behaviour="sleep")


@pytest.fixture(scope="module")
def tokenizer():
    from michiai.training.tokenizer import train

    return train([dialogue_text(s) for s in scripts("train", 3000, seed=5)], 1200)


def test_words_have_the_same_tokens_everywhere(tokenizer):
    for split in ("train", "test"):
        for script in scripts(split, 200, seed=6):
            text = dialogue_text(script)
            single = [
                i
                for word in text.split()
                for i in (
                    [tokenizer.convert_tokens_to_ids(word)]
                    if word in SPECIAL_TOKENS
                    else tokenizer(" " + word)["input_ids"]
                )
            ]
            assert tokenizer(text)["input_ids"] == single, text
            plain = " ".join(w for w in text.split() if w not in SPECIAL_TOKENS)
            assert tokenizer.decode(tokenizer(plain)["input_ids"]).strip() == plain


def test_common_words_are_single_pieces(tokenizer, tmp_path):
    assert [tokenizer.convert_tokens_to_ids(t) for t in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    for word in (*"abcdefghijklmnopqrstuvwxyz", *facts.NUMBERS, *facts.DAYS, *facts.MONTHS):
        assert word.count(" ") or len(tokenizer(word)["input_ids"]) == 1, word
    tokenizer.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    assert (
        AutoTokenizer.from_pretrained(tmp_path)("hello <turn> hello")["input_ids"]
        == tokenizer("hello <turn> hello")["input_ids"]
    )
