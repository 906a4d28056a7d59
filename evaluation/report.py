"""Tables for people. No figure is made here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PARTS = ("converse", "hear", "say", "turn", "duplex", "quiet", "voice", "default", "flow", "text", "speed")


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Columns of text: the first one to the left, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class Bar:
    """A figure that the project wants on one side of a limit; without one it is only shown."""

    name: str
    value: float | None
    limit: float | None
    show: Callable[[float | None], str]
    above: bool = True

    @property
    def wanted(self) -> str:
        return "" if self.limit is None else f"{'>=' if self.above else '<='} {self.show(self.limit)}"

    @property
    def passed(self) -> str:
        """ "-" where nothing was measured."""
        if self.value is None or self.limit is None:
            return "-" if self.value is None else ""
        return "yes" if (self.value >= self.limit if self.above else self.value <= self.limit) else "no"


def bars(result: dict) -> list[Bar]:
    """The project's bars."""
    found: list[Bar] = []
    if "converse" in result:
        c, turn, teacher = result["converse"], result["turn"], result["say"]["teacher_wer"]
        found += [
            Bar("answers right by voice", c["right_by_voice"], 0.9, percent),
            Bar("answers right by text", c["right_by_text"], (c["right_by_voice"] or 0) - 0.1, percent),
            Bar("hear: word errors", result["hear"]["wer"], 0.1, percent, above=False),
            Bar("say: word errors", result["say"]["wer"], 1.5 * (teacher or 0) + 0.05, percent, above=False),
            Bar("turn: taken", turn["taken"], 0.95, percent),
            Bar("turn: latency, median", turn["latency_p50"], 0.8, seconds, above=False),
        ]
    if "duplex" in result:
        d = result["duplex"]
        found += [
            Bar("pause: taken", d["pause_tor"], 0.2, percent, above=False),
            Bar("interruption: stop, median", d["stop_p50"], 1.0, seconds, above=False),
            Bar("interruption: stopped within 1 s", d["stopped_within_1s"], 0.8, percent),
            Bar("backchannel: goes on", d["goes_on"], None, percent),
        ]
    if "quiet" in result:
        found.append(Bar("quiet: silence, noise, echo", result["quiet"]["all"], 0.95, percent))
    if "voice" in result:
        found.append(Bar("voice: margin over others of the sex", result["voice"]["margin"], 0.15, number))
    if "default" in result:
        d = result["default"]
        found.append(Bar("say, in its default voice", d["wer"], 1.5 * (d["teacher_wer"] or 0) + 0.05, percent, above=False))
    if "speed" in result:
        found += [
            Bar("speed: real-time factor, one core", result["speed"]["rtf"], 0.5, number, above=False),
            Bar("speed: step p95", result["speed"]["step_ms_p95"] / 1000, 0.06, number, above=False),
        ]
    return found


def show_bars(result: dict) -> str:
    """With the interval in which 95 % of resampled evaluations fall, where `result["spread"]` holds one, and, in
    `result["against"]`, the difference from another evaluation with its own.
    """
    spread, against = result.get("spread", {}), result.get("against", {})
    head = ["bar", "measured", "95 % interval", "wanted", "passed"] + (["difference", "95 % interval"] if against else [])
    rows = []
    for bar in bars(result):
        row = [bar.name, bar.show(bar.value), _range(bar, spread.get(bar.name)), bar.wanted, bar.passed]
        if against:
            change = against.get(bar.name)
            row += [bar.show(change[0]), _range(bar, change[1:])] if change else ["", ""]
        rows.append(row)
    return table(head, rows)


def _range(bar: Bar, limits: list[float] | None) -> str:
    return f"{bar.show(limits[0])} to {bar.show(limits[1])}" if limits else ""


def show_topics(converse: dict) -> str:
    rows = [
        [name, t["n"], percent(t["voice"]), percent(t["text"])]
        for name, t in sorted(converse["topics"].items())
    ]
    return table(["topic", "questions", "right by voice", "right by text"], rows)


def show_speech(result: dict) -> str:
    """What was heard, by engine, and what was said."""
    hear, say = result["hear"], result["say"]
    rows = [
        [f"hear, {name} voices", row["n"], percent(row["wer"])]
        for name, row in sorted(hear["engines"].items())
    ]
    rows += [
        ["hear, clean", "", percent(hear["clean"])],
        ["hear, room and noise", "", percent(hear["noisy"])],
        ["say, the model", say["answers"], percent(say["wer"])],
        ["say, the TTS teacher", say["answers"], percent(say["teacher_wer"])],
    ]
    if "whisper_wer" in say:
        rows += [
            ["say, the model, to Whisper", say["answers"], percent(say["whisper_wer"])],
            ["say, the TTS teacher, to Whisper", say["answers"], percent(say["teacher_whisper_wer"])],
        ]
    return table(["word errors", "utterances", "WER"], rows)


def show_voice(voice: dict) -> str:
    """Likeness and word errors of the model, and in brackets of the TTS teacher, by kind of voice."""

    def both(of: dict, name: str, form: Callable[[float | None], str]) -> str:
        return f"{form(of[name])} ({form(of['teacher_' + name])})"

    rows = [
        [name, of["voices"], both(of, "similarity", number), both(of, "margin", number), both(of, "wer", percent)]
        for name, of in [("all", voice), *voice["kinds"].items()]
        if of["voices"]
    ]
    return table(["voices (in brackets the teacher)", "sentences", "similarity", "margin", "word errors"], rows)


def show_flow(flow: dict) -> str:
    rows = [
        [f"{n} step(s)", percent(r["right"]), percent(r["wer"]), number(r["similarity"]), number(r["rtf"])]
        for n, r in flow["steps"].items()
    ]
    return table(["flow", "right", "say WER", "speaker similarity", "RTF"], rows)


def show_wrong(rows: list[dict], limit: int = 20) -> str:
    """Wrong answers with what was heard and expected."""
    wrong = [row for row in rows if not row["right"]]
    lines = [
        f"wrong answers: {len(wrong)} of {len(rows)}" + (f", the first {limit}" if len(wrong) > limit else "")
    ]
    for row in wrong[:limit]:
        lines.append(
            f"  {row['topic']:<10} asked:    {row['asked']}\n{'':<13}heard:    {row['heard']}\n"
            f"{'':<13}answered: {row['answer']}\n{'':<13}expected: {' | '.join(row['expected'])}\n"
            f"{'':<13}by text:  {row.get('text_answer', '-')}"
        )
    return "\n".join(lines)
