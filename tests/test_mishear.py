"""Words misheard on purpose: what may change and what must not."""

import numpy as np

from michiai.data.grammar import make_script
from michiai.data.mishear import CLEAN, NAMES, mishear, misheard
from michiai.data.text import without_pauses


def test_words_to_keep_and_marks_stay() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        heard = mishear(rng, "please spell <pause> the word apple", frozenset({"apple"}), chance=1.0).split()
        assert heard.count("apple") == 1 and heard.count("<pause>") == 1 and heard != ["please", "spell", "<pause>", "the", "word", "apple"]


def test_about_as_many_words_change_as_asked_for() -> None:
    rng, text = np.random.default_rng(0), "what colour is the car of winifred"
    changed = [len(set(text.split()) - set(mishear(rng, text, chance=0.3).split())) for _ in range(400)]
    assert 0.15 < np.mean(changed) / 7 < 0.4
    assert mishear(rng, text, chance=0.0) == text


def test_only_the_user_is_misheard_and_what_cannot_be_guessed_is_kept() -> None:
    changed = 0
    for seed in range(400):
        script = make_script(np.random.default_rng(seed), "train")
        heard = misheard(np.random.default_rng(seed), script)
        assert heard == misheard(np.random.default_rng(seed), script)
        changed += heard != script
        told = f"{script.context} {script.instructions} {script.injections}"
        questions = {question.turn: question for question in script.questions}
        for i, (said, got) in enumerate(zip(script.turns, heard.turns, strict=True)):
            assert got == said or (said.who == "user" and got.timing == said.timing and got.text)
            if said.who == "user" and i in questions:
                kind, accept = questions[i].kind, questions[i].accept
                if kind == "repeat":
                    assert accept[0] in without_pauses(got.text)
                if kind == "spell":
                    assert accept[0].replace(" ", "") in got.text.split()
                if accept[0] in NAMES and accept[0] in said.text.split() and accept[0] not in told:
                    assert accept[0] in got.text.split()
    assert 0.3 < changed / 400 < 1 - CLEAN
