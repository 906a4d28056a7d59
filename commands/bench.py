"""bench: step time and real-time factor."""

import argparse
import json

import torch
from michiai.evaluation.load import ROOT, load_model, random_model
from michiai.evaluation.speed import measure, print_speed

from .shared import add_model

HELP = "time one session frame by frame: nano as it is, and the 530M preset with random weights"
PRESET = ROOT / "configs" / "530m"


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "bench",
        help=HELP,
        description=f"{HELP}. Real time is 80 ms per frame. The last line is one JSON object.",
    )
    add_model(p)
    p.add_argument("--quick", action="store_true", help="fewer frames, and without the 530M preset")
    p.add_argument("--threads", type=int, default=1, help="CPU threads (default 1: one core)")
    p.add_argument("--device", default="cpu", help="cpu or cuda")
    p.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        help="to compute in; CPU: float32 is fastest",
    )
    p.add_argument("--steps", type=int, default=1, help="flow steps per frame")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.threads < 1 or args.steps < 1:
        raise ValueError(
            f"--threads is {args.threads} and --steps is {args.steps}; expected 1 or more of both"
        )
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device is {args.device!r}, but torch finds no CUDA device here; expected cpu")
    dtype = getattr(torch, args.dtype)
    frames = 100 if args.quick else 400
    rows = {"nano": measure(load_model(args.model, args.device, dtype), frames, args.steps, args.threads)}
    if not args.quick and (PRESET / "config.json").is_file():
        rows["530m (random weights)"] = measure(
            random_model(PRESET, args.device, dtype), 50, args.steps, args.threads
        )
    print_speed(rows)
    print(json.dumps({"command": "bench", "models": rows}))
