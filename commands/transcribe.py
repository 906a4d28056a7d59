"""transcribe: what the listen head hears."""

import argparse

from michiai.evaluation.load import load_model

from .shared import add_model

HELP = "print what is said in a recording, with the time at which every word ended"


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("transcribe", help=HELP, description=f"{HELP}.")
    p.add_argument("input", metavar="IN.wav", help="WAV, FLAC, Ogg or MP3 at any usual rate")
    add_model(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    heard = load_model(args.model).transcribe(args.input)
    for word, time in heard.words:
        print(f"{time:7.2f} s  {word}")
    print(heard.text or "(no words)")
