"""The figures of the card are those of the evaluation of the committed weights, which lies beside their recipe."""

import hashlib
import json
from pathlib import Path

import pytest

from michiai.evaluation.report import bars
from michiai.evaluation.suite import figures

ROOT = Path(__file__).resolve().parents[1]
ROWS = {  # how the card calls what is measured
    "answers right by voice": "answers right by voice",
    "the same questions by text": "answers right by text",
    "hear: word error rate": "hear: word errors",
    "say: word error rate": "say: word errors",
    "say, in its default voice": "say, in its default voice",
    "turn: taken": "turn: taken",
    "turn: median latency": "turn: latency, median",
    "a pause inside a turn": "pause: taken",
    "interruption: median time": "interruption: stop, median",
    "interruption: silent within": "interruption: stopped within 1 s",
    "it stays silent": "quiet: silence, noise, echo",
}


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads((ROOT / "runs" / "nano.json").read_text())


def test_the_evaluation_is_of_the_committed_weights(measured: dict) -> None:
    assert measured["result"]["weights_sha256"] == hashlib.sha256((ROOT / "model.safetensors").read_bytes()).hexdigest()


def test_its_figures_follow_from_its_conversations(measured: dict) -> None:
    result, rows = measured["result"], measured["rows"]
    again = {bar.name: bar.value for bar in bars(figures(rows, set(result["parts"])))}
    assert again == {bar.name: pytest.approx(bar.value, abs=1e-4) for bar in bars(result)}


def test_the_card_says_these_figures_and_which_are_missed(measured: dict) -> None:
    found = {bar.name: bar for bar in bars(measured["result"])}
    lines = (ROOT / "README.md").read_text().splitlines()
    for start, name in ROWS.items():
        (line,) = (line for line in lines if line.startswith(f"| {start}"))
        bar, said = found[name], line.split("|")[2].strip()
        shown = bar.show(bar.value).replace("100.0 %", "100 %")
        assert said == (f"**{shown}**" if bar.passed == "no" else shown), line
    (line,) = (line for line in lines if line.startswith("| all |"))
    assert f"{measured['result']['voice']['similarity']:.3f} (" in line and f"{measured['result']['voice']['margin']:.3f}" in line
