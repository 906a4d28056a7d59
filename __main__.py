"""`python -m michiai`: converse, transcribe, speak, app, serve, evaluate, bench."""

import argparse
import sys

from .commands import app, bench, converse, evaluate, serve, speak, transcribe


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m michiai",
        description="MichiAI: a small full-duplex speech language model. "
        "Try: python -m michiai converse examples/question.wav answer.wav",
    )
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (converse, transcribe, speak, app, serve, evaluate, bench):
        command.add(commands)
    return p


def main(argv: list[str] | None = None) -> int:
    """Run a command; bad input is one line on stderr and exit code 2."""
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        print(f"michiai {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
