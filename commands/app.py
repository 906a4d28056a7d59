"""app: the Space's page on this machine."""

import argparse
import os
import sys

from michiai.evaluation.load import ROOT

from .shared import check_packages

HELP = "serve the page that the Space serves: talk to it in the browser"
NEEDS = ("gradio", "fastrtc", "librosa")


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("app", help=HELP, description=f"{HELP}. docs/serving.md lists the environment variables that decide the rest.")
    p.add_argument("--model", metavar="DIR", help="folder of a checkpoint (default: MODEL_ID of the environment, or this repository's)")
    p.add_argument("--host", help="address to listen at (default: HOST of the environment, or 127.0.0.1)")
    p.add_argument("--port", help="port to listen at (default: PORT of the environment, or 7860)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Become `python app.py`, which sets threads and folders before its imports."""
    check_packages("the page", NEEDS, "pip install -r requirements.txt")
    chosen = {"MODEL_ID": args.model, "HOST": args.host, "PORT": args.port}
    os.environ.update({name: value for name, value in chosen.items() if value is not None})
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(ROOT / "app.py")])
