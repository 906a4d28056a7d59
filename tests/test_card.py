"""The figures of the card are those of the evaluation of the committed weights and of the bench, which lie beside their recipe."""

import hashlib
import json
from pathlib import Path

import pytest

from michiai.evaluation.report import bars
from michiai.evaluation.suite import figures, spread

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


def test_the_card_says_what_more_questions_found(measured: dict) -> None:
    more = json.loads((ROOT / "runs" / "nano_400.json").read_text())
    assert more["result"]["weights_sha256"] == measured["result"]["weights_sha256"] and more["result"]["seed"] != measured["result"]["seed"]
    rows, parts = {"question": measured["rows"]["question"] + more["rows"]["question"]}, {"converse", "hear", "say"}
    of_400, of_600, low_high = more["result"], figures(rows, parts), spread(rows, parts)
    text = (ROOT / "README.md").read_text()
    shares = of_400["converse"]["right_by_voice"], of_400["converse"]["right_by_text"], of_400["hear"]["wer"], of_400["say"]["wer"]
    said = "by voice {:.1f} %, by text {:.1f}, hear {:.1f}, say {:.1f}".format(*(100 * share for share in shares))
    assert said + f" where the teacher has {100 * of_400['say']['teacher_wer']:.1f}" in text
    named = {bar.name: bar for bar in bars(of_600)}
    for start, name in (("by voice **{} %** ({} to {})", "answers right by voice"), ("hear {} % ({} to {})", "hear: word errors"),
                        ("say **{} %** ({} to {})", "say: word errors")):
        figure = start.format(*(f"{100 * share:.1f}" for share in (named[name].value, *low_high[name])))
        assert figure in text, figure


@pytest.fixture(scope="module")
def timed() -> dict:
    return json.loads((ROOT / "runs" / "speed.json").read_text())


def cells(line: str) -> list[str]:
    return [cell.replace("**", "").strip() for cell in line.strip("|").split("|")]


def test_the_card_says_the_times_of_steps_that_were_measured(timed: dict) -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [cells(line) for line in lines if line.startswith(("| nano |", "| 530M |", "| **530M** |"))]
    assert len(rows) == 6
    for model, form, threads, frames, *times in rows:
        (run,) = (
            run for name, run in timed["step"]["models"].items()
            if (name.split(",")[0], run["form"], run["threads"]) == (model, form, int(threads))
        )
        assert run["frames"] == int(frames.replace(",", ""))
        assert times == [f"{run[of]:.1f}" for of in ("step_ms_p50", "step_ms_p95", "step_ms_p99", "ttfa_ms_p50")], (model, form, threads)


def test_the_card_says_what_peers_parts_and_loading_take(timed: dict) -> None:
    text = (ROOT / "README.md").read_text()
    for name, peer in timed["peers"]["peers"].items():
        (row,) = (cells(line) for line in text.splitlines() if line.startswith(f"| {name} |"))
        assert row[2:4] == [f"{peer['ms_per_second']:,.0f}", f"{peer['ratio']:.1f}"], name
    for name, part in {"Speak head": "speak_head", "Vocoder": "vocoder", "A step, on average": "a step, on average"}.items():
        (found,) = (row for row in timed["step"]["profile"] if row["part"] == part)
        assert f"| {name} | {found['megabytes']:.0f} | {found['floor_ms']:.1f} | {found['ms']:.1f} |" in text
    big, hour = timed["load"]["load"]["530M, cpu-int8, saved"], timed["growth"]["hour"]
    ours, mimi = (timed["vocoder"]["vocoders"][name]["streaming"] for name in ("530M, cpu-int8", "Mimi decoder"))
    assert f"is loaded in {big['seconds']:.1f} s, and its process holds {big['resident_mb']:,.0f} MiB" in text
    assert f"grown by {hour['memory_growth']:.1%} and nano's step by {hour['step_growth']:.1%}".replace("%", " %") in text
    assert f"in the 530M's ({ours:.0f}), and {mimi:,.0f} in Mimi's decoder, {mimi / ours:.1f} times as much" in text
