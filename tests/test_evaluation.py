"""The judges themselves: known errors, known sounds, known times."""

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from michiai.evaluation import referees, report, suite
from michiai.evaluation.referees import segments, word_errors, words_of
from michiai.evaluation.talk import Script, Talk

RATE = 16_000


def has(*modules: str):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{missing} not installed")


@pytest.mark.parametrize(
    ("wanted", "got", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a c", 1),
        ("a b", "a x b", 1),
        ("a b", "x y", 2),
        ("", "a b", 2),
        ("a", "", 1),
    ],
)
def test_word_errors(wanted, got, errors):
    assert word_errors(wanted.split(), got.split()) == errors


def test_words_to_compare():
    assert words_of("<laugh> It's a. B. <hm>") == ["it's", "a", "b"]


def test_segments_bridge_short_silences_only():
    audio = np.zeros(3 * RATE, np.float32)
    for start, end in ((0.5, 0.8), (1.0, 1.2), (1.7, 2.0), (2.5, 2.52)):  # the last one is too short
        audio[int(start * RATE) : int(end * RATE)] = 0.1
    assert np.allclose(segments(audio, RATE), [(0.5, 1.2), (1.7, 2.0)])
    assert segments(0.05 * audio, RATE) == []


class Fake:
    """A frame."""

    def __init__(self, index: int, loud: bool, text: str = "") -> None:
        self.index, self.speaking, self.text, self.user_text = index, loud, text, ""
        self.audio = torch.full((1280,), 0.1 if loud else 0.0)


def made(loud: range, text: dict[int, str], n: int = 60) -> Talk:
    return Talk([Fake(i, i in loud, text.get(i, "")) for i in range(n)], RATE)


class Asked:
    """An item of one turn that ends after 2 s."""

    end, asked_at = 2.0, 0.5

    class script:
        turns = ("question", "answer")

    class question:
        turn = 0


def test_latency_is_from_the_users_end_to_the_first_sound():
    from michiai.evaluation.converse import turn_times

    times = turn_times(made(range(32, 50), {31: " two", 40: " three"}), Asked)
    assert times["taken"] and times["tor"] and not times["premature"]
    assert times["latency"] == pytest.approx(32 * 0.08 - 2.0, abs=0.011)


def test_early_silent_and_wordless_turns_are_not_taken():
    from michiai.evaluation.converse import turn_times

    early = turn_times(made(range(10, 40), {12: " two"}), Asked)
    assert early["premature"] and not early["taken"] and early["latency"] is None
    assert not turn_times(made(range(0), {31: " two"}), Asked)["taken"]
    assert not turn_times(made(range(32, 50), {}), Asked)["taken"]
    short = turn_times(made(range(32, 38), {31: " green"}), Asked)
    assert short["taken"] and not short["tor"], "Full-Duplex-Bench calls a short reply no takeover"


def test_the_users_side_ends_when_nothing_happens_any_more():
    script = Script(np.full(1280 * 3, 0.1, np.float32), 1280, RATE, patience=0.5, limit=10)
    script.add(np.full(1280, 0.2, np.float32), 2)
    pieces = []
    while (piece := script(len(pieces), [])) is not None:
        pieces.append(piece)
    assert len(pieces) == 3 + 6 and pieces[2][0] == pytest.approx(0.3) and not pieces[3].any()


def test_plan_serves_every_part_and_grows():
    few, many = (suite.plan(set(suite.PARTS), n) for n in (12, 200))
    kinds = {"question", "pause", "interrupt", "backchannel", "silence", "noise", "echo", "voice", "default", "flow"}
    assert {kind for kind, _ in few} == kinds and len(many) > len(few)
    assert [kind for kind, _ in many].count("question") == 200
    assert suite.plan({"speed"}, 200) == []


def test_summaries_and_tables():
    from michiai.evaluation import converse

    row = {
        "topic": "sum",
        "engine": "flite",
        "noisy": False,
        "right": True,
        "text_right": True,
        "latency": 0.6,
        "tor": True,
    }
    row |= {
        "taken": True,
        "premature": False,
        "hear_words": 4,
        "hear_errors": 1,
        "say_words": 4,
        "say_errors": 2,
    }
    row |= {"teacher_errors": 1, "asked": "a", "heard": "a", "answer": "b", "expected": ["b"]}
    wrong = row | {"right": False, "latency": None, "taken": False, "topic": "capital", "say_words": 0}
    result = converse.summarise([row, wrong])
    assert result["converse"]["right_by_voice"] == 0.5 and result["hear"]["wer"] == 0.25
    assert result["say"] | {"answers": 1, "wer": 0.5, "teacher_wer": 0.25} == result["say"]
    assert "whisper_wer" not in result["say"] and "Whisper" not in report.show_speech(result)
    heard = row | {"whisper_words": 3, "whisper_errors": 2, "teacher_whisper_errors": 1}
    assert converse.summarise([heard])["say"]["whisper_wer"] == 2 / 3
    assert "33.3 %" in report.show_speech(converse.summarise([heard]))
    assert result["turn"]["taken"] == 0.5 and result["turn"]["latency_p50"] == 0.6
    shown = report.show_bars(result)
    assert "50.0 %" in shown and "<= 42.5 %" in shown  # 1.5 x 25 % + 5 points
    assert "capital" in report.show_wrong([row, wrong]) and "sum" in report.show_topics(result["converse"])


def asked(right: list[bool], question: str = "a") -> dict[str, list[dict]]:
    row = {"topic": "sum", "engine": "flite", "noisy": False, "asked": question, "text_right": True, "latency": 0.6, "taken": True}
    row |= {"tor": True, "premature": False, "hear_words": 4, "hear_errors": 1, "say_words": 4, "say_errors": 2, "teacher_errors": 1}
    return {"question": [row | {"right": value} for value in right]}


def test_a_bar_has_the_interval_of_resampled_conversations():
    from michiai.evaluation.suite import figures, spread

    found = spread(asked([True] * 75 + [False] * 25), {"converse"})
    low, high = found["answers right by voice"]
    assert abs(low - (0.75 - 1.96 * 0.0433)) < 0.02 and abs(high - (0.75 + 1.96 * 0.0433)) < 0.02  # binomial: sqrt(0.75 x 0.25 / 100)
    assert found["hear: word errors"] == [0.25, 0.25]
    result = figures(asked([True, False]), {"converse"})
    assert "50.0 %    0.0 % to 100.0 %" in report.show_bars(result | {"spread": spread(asked([True, False]), {"converse"})})


def test_two_evaluations_are_compared_conversation_by_conversation():
    from michiai.evaluation.suite import compare, figures

    before = [i % 2 == 0 for i in range(100)]
    now = [value or i < 20 for i, value in enumerate(before)]  # ten more are right, and none is wrong that was right
    found = compare(asked(now), asked(before), {"converse", "voice"})
    change, low, high = found["answers right by voice"]
    assert change == pytest.approx(0.1) and 0.03 < low < 0.07 and 0.13 < high < 0.18  # unpaired it would reach from -0.04 to 0.24
    assert "10.0 %" in report.show_bars(figures(asked(now), {"converse"}) | {"against": found})
    with pytest.raises(ValueError, match="asked something else"):
        compare(asked(now), asked(before, "b"), {"converse"})
    with pytest.raises(ValueError, match="asked something else"):
        compare(asked(now), asked(before), {"quiet"})


def test_whisper_counts_numbers_as_they_are_said(monkeypatch):
    class Model:
        def transcribe(self, audio, **_):
            return [SimpleNamespace(text=f" It's {len(audio)}.")], None

    normaliser = pytest.importorskip("transformers.models.whisper.english_normalizer").EnglishTextNormalizer({})
    monkeypatch.setattr(referees, "whisper", lambda: (Model(), normaliser))
    found = referees.whisper_errors("it is twenty one", {"right": np.zeros(21), "wrong": np.zeros(12)})
    assert found == {"whisper_words": 3, "right": 0, "wrong": 1}


def test_voice_margin_compares_with_the_same_sex_only():
    from michiai.evaluation.suite import compare
    from michiai.evaluation.voice import compared, summarise

    e = np.eye(3)
    rows = [
        {"voice": v, "kind": "natural", "sex": s, "reference": e[i], "clone": e[i], "teacher": e[i]}
        | {"words": 4, "errors": i, "teacher_errors": 0}
        for i, (v, s) in enumerate(("aF", "bF", "cM"))
    ]
    found = summarise(compared(rows))
    assert found["margin"] == pytest.approx(1.0) and summarise(compared(rows[:1]))["margin"] is None
    assert found["wer"] == 3 / 12 and found["teacher_wer"] == 0 and found["kinds"]["other"]["similarity"] is None
    assert "25.0 % (0.0 %)" in report.show_voice(found)
    worse = compared([row | {"clone": row["clone"] / 2} for row in rows])
    change = compare({"voice": compared(rows)}, {"voice": json.loads(json.dumps(worse))}, {"voice"})
    assert change == {"voice: margin over others of the sex": pytest.approx([0.5, 0.5, 0.5])}
    with pytest.raises(ValueError, match="asked something else"):
        compare({"voice": compared(rows)}, {"voice": compared(rows[::-1])}, {"voice"})


def test_figures_are_json():
    from michiai.commands.evaluate import plain

    rows = [{"a": np.float64(0.25), "vector": np.ones(3), "flag": np.bool_(True)}]
    assert json.loads(json.dumps(plain({"rows": rows}))) == {"rows": [{"a": 0.25, "flag": True}]}


def test_step_times(model):
    from michiai.evaluation.speed import measure

    figures = measure(model, 5)
    assert figures["frames"] == 5 and figures["rtf"] > 0


@has("pocketsphinx")
@pytest.mark.slow
def test_items_are_held_out_and_exact():
    from michiai.data.tts import is_held_out
    from michiai.evaluation.items import LEAD, make_item
    from michiai.evaluation.referees import recognise

    item, again = make_item(0, 2), make_item(0, 2)
    assert np.array_equal(item.user, again.user) and item.topic == "sum"
    assert is_held_out(item.user_voice) and is_held_out(item.model_voice)
    assert 0 <= len(item.user) / RATE - item.end < 0.2
    leads = [item.asked_at, make_item(0, 3).asked_at]
    assert LEAD[0] <= min(leads) < max(leads) <= LEAD[1] and item.spans[0].start >= item.asked_at
    assert recognise(item.reference), "the referee understands the reference voice"


def test_the_default_voice_answers_the_same_questions_and_has_its_own_bar():
    from michiai.data.tts import is_held_out
    from michiai.evaluation.items import in_default_voice, make_item
    from michiai.evaluation.talk import open_session

    class Model:
        def voice(self, reference):
            return "cloned"

        def session(self, voice, **_):
            return voice

    item = make_item(0, 2)
    own = in_default_voice(item)
    assert own.heard == item.heard and np.array_equal(own.user, item.user)
    assert (own.model_voice.name, is_held_out(own.model_voice)) == ("heart", False)
    assert open_session(Model(), own, 0) is None and open_session(Model(), item, 0) == "cloned"

    row = {"say_words": 10, "say_errors": 4, "teacher_errors": 2, "speech": True}
    result = suite.figures({"default": [row, {"asked": "silent"}]}, {"default"})
    assert result["default"] == {"answers": 1, "wer": 0.4, "teacher_wer": 0.2, "taken_for_speech": 1.0}
    (bar,) = report.bars(result)
    assert (bar.passed, bar.wanted) == ("no", "<= 35.0 %")


@pytest.mark.slow
def test_a_pause_lies_between_two_spans():
    from michiai.evaluation.items import make_item

    spans = make_item(0, 7, "pause").spans
    assert len(spans) >= 2 and all(b.start - a.end >= 0.6 for a, b in zip(spans, spans[1:], strict=False))
