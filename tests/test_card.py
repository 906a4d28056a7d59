"""The figures of the card and of docs/ are those of the evaluation of the committed weights, and of the bench."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from michiai.evaluation.report import Bar, bars
from michiai.evaluation.suite import figures, spread

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "README.md"
EVALUATION, SPEED = ROOT / "docs" / "evaluation.md", ROOT / "docs" / "speed.md"
ROWS = {  # how docs/evaluation.md calls what is measured
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
NOT_ON_CARD = "say: word errors", "interruption: stopped within 1 s"
CARD_ROWS = {start: name for start, name in ROWS.items() if name not in NOT_ON_CARD} | {  # and the card
    "say: PocketSphinx": "say: word errors",
    "voice: similarity": "voice: margin over others of the sex",
}
VOCODERS = {  # and docs/speed.md
    "nano's, float32": "nano, eager",
    "nano's, int8 form": "nano, cpu-int8",
    "the 530M's, float32": "530M, eager",
    "the 530M's, int8 form": "530M, cpu-int8",
    "Mimi's decoder": "Mimi decoder",
}


def cells(line: str) -> list[str]:
    return [cell.replace("**", "").strip() for cell in line.strip("|").split("|")]


def row(page: Path, start: str) -> str:
    """The one line of a table on the page that begins so."""
    (line,) = (line for line in page.read_text().splitlines() if line.startswith(f"| {start}"))
    return line


def words(page: Path) -> str:
    """The page's text as one line."""
    return " ".join(page.read_text().split())


def shown(bar: Bar) -> str:
    """A bar's figure as the tables have it: in bold where it is missed."""
    figure = bar.show(bar.value).replace("100.0 %", "100 %")
    return f"**{figure}**" if bar.passed == "no" else figure


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads((ROOT / "runs" / "nano.json").read_text())


def test_the_evaluation_is_of_the_committed_weights(measured: dict) -> None:
    assert measured["result"]["weights_sha256"] == hashlib.sha256((ROOT / "model.safetensors").read_bytes()).hexdigest()


def test_its_figures_follow_from_its_conversations(measured: dict) -> None:
    result, rows = measured["result"], measured["rows"]
    again = {bar.name: bar.value for bar in bars(figures(rows, set(result["parts"])))}
    assert again == {bar.name: pytest.approx(bar.value, abs=1e-4) for bar in bars(result)}


def test_the_evaluation_says_these_figures_and_which_are_missed(measured: dict) -> None:
    found = {bar.name: bar for bar in bars(measured["result"])}
    for start, name in ROWS.items():
        assert row(EVALUATION, start).split("|")[2].strip() == shown(found[name]), name
    line = row(EVALUATION, "all |")
    assert f"{measured['result']['voice']['similarity']:.3f} (" in line and f"{measured['result']['voice']['margin']:.3f}" in line


@pytest.fixture(scope="module")
def more() -> dict:
    return json.loads((ROOT / "runs" / "nano_400.json").read_text())


@pytest.fixture(scope="module")
def asked(measured: dict, more: dict) -> dict:
    """The conversations of all 600 questions."""
    return {"question": measured["rows"]["question"] + more["rows"]["question"]}


def test_the_evaluation_says_what_more_questions_found(measured: dict, more: dict, asked: dict) -> None:
    assert more["result"]["weights_sha256"] == measured["result"]["weights_sha256"] and more["result"]["seed"] != measured["result"]["seed"]
    parts, text, of_400 = {"converse", "hear", "say"}, words(EVALUATION), more["result"]
    shares = of_400["converse"]["right_by_voice"], of_400["converse"]["right_by_text"], of_400["hear"]["wer"], of_400["say"]["wer"]
    said = "by voice {:.1f} %, by text {:.1f}, hear {:.1f}, say {:.1f}".format(*(100 * share for share in shares))
    assert said + f" where the teacher has {100 * of_400['say']['teacher_wer']:.1f}" in text
    named, low_high = {bar.name: bar for bar in bars(figures(asked, parts))}, spread(asked, parts)
    for start, name in (("by voice **{} %** ({} to {})", "answers right by voice"), ("hear {} % ({} to {})", "hear: word errors"),
                        ("say **{} %** ({} to {})", "say: word errors")):
        figure = start.format(*(f"{100 * share:.1f}" for share in (named[name].value, *low_high[name])))
        assert figure in text, figure


def test_the_card_says_the_same_and_which_are_missed(measured: dict, asked: dict) -> None:
    of_600, of_200 = figures(asked, {"converse", "hear", "say"}), measured["result"]
    by_600, by_200 = ({bar.name: bar for bar in bars(result)} for result in (of_600, of_200))
    for start, name in CARD_ROWS.items():
        of_all = name.startswith(("answers", "hear", "say: word"))
        bar, (_, figure, wanted) = (by_600 if of_all else by_200)[name], cells(row(CARD, start))
        assert figure == shown(bar).replace("**", "") and ("**" in row(CARD, start)) == (bar.passed == "no"), start
        if wanted:
            assert float(wanted.split()[0]) == float(bar.show(bar.limit).split()[0]), start
    for result, start in ((of_600["say"], "say: PocketSphinx"), (of_200["default"], "say, in its default voice")):
        assert f"(on the TTS teacher: {100 * result['teacher_wer']:.1f} %)" in row(CARD, start)


@pytest.fixture(scope="module")
def timed() -> dict:
    return json.loads((ROOT / "runs" / "speed.json").read_text())


def step_of(timed: dict, model: str, form: str, threads: int) -> dict:
    """The one run of a model in a form on so many threads."""
    (run,) = (
        run for name, run in timed["step"]["models"].items()
        if (name.split(",")[0], run["form"], run["threads"]) == (model, form, threads)
    )
    return run


def test_its_times_of_steps_are_those_that_were_measured(timed: dict) -> None:
    lines = SPEED.read_text().splitlines()
    rows = [cells(line) for line in lines if line.startswith(("| nano |", "| 530M |", "| **530M** |"))]
    assert len(rows) == 6
    for model, form, threads, frames, *times in rows:
        run = step_of(timed, model, form, int(threads))
        assert run["frames"] == int(frames.replace(",", ""))
        assert times == [f"{run[of]:.1f}" for of in ("step_ms_p50", "step_ms_p95", "step_ms_p99", "ttfa_ms_p50")], (model, form, threads)


def test_so_are_those_of_peers_parts_vocoders_and_loading(timed: dict) -> None:
    text = words(SPEED)
    for name, peer in timed["peers"]["peers"].items():
        assert cells(row(SPEED, f"{name} |"))[2:4] == [f"{peer['ms_per_second']:,.0f}", f"{peer['ratio']:.1f}"], name
    for name, part in {"Speak head": "speak_head", "Vocoder": "vocoder", "A step, on average": "a step, on average"}.items():
        (found,) = (row for row in timed["step"]["profile"] if row["part"] == part)
        assert f"| {name} | {found['megabytes']:.0f} | {found['floor_ms']:.1f} | {found['ms']:.1f} |" in text
    big, hour = timed["load"]["load"]["530M, cpu-int8, saved"], timed["growth"]["hour"]
    assert f"is loaded in {big['seconds']:.1f} s, and its process holds {big['resident_mb']:,.0f} MiB" in text
    assert f"grown by {hour['memory_growth']:.1%} and nano's step by {hour['step_growth']:.1%}".replace("%", " %") in text
    streamed = {name: took["streaming"] for name, took in timed["vocoder"]["vocoders"].items() if "streaming" in took}
    for start, name in VOCODERS.items():
        assert cells(row(SPEED, start))[1].split(", ")[0] == f"{streamed[name]:,.0f}", name
    assert f"{streamed['Mimi decoder'] / streamed['530M, cpu-int8']:.1f} times as much" in row(SPEED, "Mimi's decoder")


def test_the_card_says_the_same_of_speed(timed: dict) -> None:
    hour = timed["growth"]["hour"]
    big, small = step_of(timed, "530M", "cpu-int8", 2), step_of(timed, "nano", "cpu-int8", 1)
    vocoders = timed["vocoder"]["vocoders"]
    for start, figure in {
        "530M, int8, one 80 ms frame": f"{big['step_ms_p50']:.1f} ms",
        "the same: 95th percentile": f"{big['step_ms_p95']:.1f} ms",
        "from a frame's last sample": f"{big['ttfa_ms_p50']:.1f} ms",
        "nano, int8, one core": f"{80 / small['step_ms_p50']:.0f}",
        "Moshi's compute": f"{timed['peers']['peers']['Moshi']['ratio']:.1f}",
        "Mimi's decoder": f"{vocoders['Mimi decoder']['streaming'] / vocoders['530M, cpu-int8']['streaming']:.1f}",
        "an hour of conversation": f"{hour['memory_growth']:.1%}; {hour['step_growth']:.1%}".replace("%", " %"),
    }.items():
        assert cells(row(CARD, start))[1] == figure, start


@pytest.mark.parametrize("page", [CARD, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        led = page.parent / target if target else page
        assert led.exists(), target
        if anchor:
            titles = [line.lstrip("# ").lower() for line in led.read_text().splitlines() if line.startswith("#")]
            assert anchor in [re.sub(r"[^\w -]", "", title).replace(" ", "-") for title in titles], anchor
