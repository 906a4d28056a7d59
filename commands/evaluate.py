"""evaluate: all figures of a checkpoint."""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from michiai.evaluation import report
from michiai.evaluation.load import ROOT, load_model

from .shared import add_model, add_parts, check_output

HELP = "measure a checkpoint on held-out voices, names, numbers and questions"
NOTES = """
parts:
  converse  answers right by voice and by text, per topic
  hear      word errors of what it heard
  say       word errors of a recogniser on its sound, beside the same recogniser on the TTS teacher;
            of Whisper base, too, after `pip install .[whisper]`
  turn      takes the turn, and when
  duplex    pauses, interruptions, backchannels
  quiet     10 s of silence, noise, its own echo
  voice     speaker similarity to a reference, and word errors, most of the voices like people's
  default   say, on the first questions, in the voice that nano has where none is given
  flow      1 flow step beside 16
  text      perplexity, and before speech training with --text-checkpoint
  speed     step time on one core
Needs flite, espeak-ng and festival, and `pip install .[eval,train]`.
The last line printed is one JSON object."""


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "evaluate",
        help=HELP,
        description=f"{HELP}.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(p)
    p.add_argument(
        "--questions",
        type=int,
        default=200,
        metavar="N",
        help="held-out questions (default 200); other parts grow with it",
    )
    add_parts(p, report.PARTS)
    p.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes, one thread each (default 2)"
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument(
        "--optimize",
        metavar="FORM",
        choices=("cpu-int8",),
        help="evaluate the model in a faster form: cpu-int8",
    )
    p.add_argument(
        "--text-checkpoint",
        metavar="FILE",
        help="model.safetensors of the text stage, for perplexity before speech training",
    )
    p.add_argument(
        "--wrong", type=int, default=20, metavar="N", help="show so many wrong answers (default 20)"
    )
    p.add_argument(
        "--json", metavar="FILE", help="write the figures and every single conversation's row to a .json file"
    )
    p.add_argument(
        "--against", metavar="FILE", help="show how much each bar differs from that of another evaluation, written by --json"
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.questions < 1 or args.workers < 1:
        raise ValueError(
            f"--questions is {args.questions} and --workers is {args.workers}; expected 1 or more of both"
        )
    if args.json:
        check_output(args.json, (".json",))
    load_model(args.model)  # a wrong folder is said before workers start
    before = read_rows(args.against, args.questions, args.seed) if args.against else None
    try:
        from michiai.evaluation.suite import compare, evaluate  # it makes speech: whoever only talks need not have what that takes
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}; expected the packages of `pip install .[eval,train]`") from error
    result, rows = evaluate(
        args.model,
        parts=tuple(args.parts),
        questions=args.questions,
        seed=args.seed,
        workers=args.workers,
        text_checkpoint=args.text_checkpoint,
        form=args.optimize,
    )
    command = " ".join(
        [
            "python -m michiai evaluate",
            *(["--model DIR"] if args.model != str(ROOT) else []),
            "--questions",
            str(args.questions),
            "--seed",
            str(args.seed),
            *(["--optimize", args.optimize] if args.optimize else []),
            "--parts",
            *args.parts,
        ]
    )
    with (Path(args.model) / "model.safetensors").open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    result = {"command": command, "weights_sha256": weights} | result
    if before is not None:
        try:
            result["against"] = compare(rows, before, set(args.parts))
        except ValueError as error:  # what was measured is shown all the same
            print(f"michiai evaluate: no differences from {args.against}: {error}", file=sys.stderr)
    for text in tables(result, rows, args.wrong):
        print(text, end="\n\n")
    figures = plain(result)
    print(json.dumps(figures), flush=True)  # before the file, which may fail: a full disk
    if args.json:
        Path(args.json).write_text(json.dumps({"result": figures, "rows": plain(rows)}, indent=1) + "\n")


def read_rows(path: str, questions: int, seed: int) -> dict[str, list[dict]]:
    """The rows of an evaluation that --json wrote, which asked the same."""
    try:
        other = json.loads(Path(path).read_text())
        rows, asked = other["rows"], other["result"]["seed"]
        n = len(rows["question"]) if "question" in rows else questions  # without questions in it, other parts may be compared
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"--against is {path!r}, which holds no evaluation ({error!r}); expected a file that --json wrote") from error
    if (n, asked) != (questions, seed):
        raise ValueError(f"--against is {path!r}, with {n} questions of seed {asked}; expected those of this one: --questions {questions} "
                         f"--seed {seed}, or change these")
    return rows


def tables(result: dict, rows: dict[str, list[dict]], wrong: int) -> list[str]:
    """All tables for people, in order."""
    shown = []
    if "converse" in result:
        shown += [
            report.show_wrong(rows["question"], wrong),
            report.show_topics(result["converse"]),
            report.show_speech(result),
        ]
    if "flow" in result:
        shown.append(report.show_flow(result["flow"]))
    if "text" in result:
        shown.append(
            f"text perplexity of answers: {result['text']['perplexity']:.3f}"
            + (
                f", before speech training {result['text']['before']:.3f}"
                if "before" in result["text"]
                else ""
            )
        )
    if "voice" in result:
        shown.append(report.show_voice(result["voice"]))
    if "quiet" in result:
        q = result["quiet"]
        shown.append(
            report.table(
                ["quiet", "share"], [[name, report.percent(q[name])] for name in ("silence", "noise", "echo")]
            )
        )
    return [*shown, report.show_bars(result)]


def plain(value: object) -> object:
    """Without arrays, for JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if not hasattr(v, "dtype") or v.ndim == 0}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 5)
    return value.item() if hasattr(value, "item") else value
