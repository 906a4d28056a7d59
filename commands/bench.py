"""bench: speed, part by part, with peers in the same run."""

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path

import torch

from michiai.evaluation import bench_growth, bench_kernels, bench_peers, bench_step, bench_vocoder

from .shared import add_model, add_parts, check_device

HELP = "measure the speed of nano and of the 530M preset (random weights), and of peers beside them"
PARTS = ("step", "kernels", "peers", "growth", "vocoder", "load")
NOTES = """
parts:
  step     step time p50, p95, p99 and time to first audio, eager and optimised, 1 and 2 threads; by parts
  kernels  one position times a matrix, by all forms of weights (not with --quick)
  peers    PocketTTS, Moshi, CSM from transformers with random weights, per second of audio
  growth   sessions, flow steps, prompt length, an hour of conversation; plots
  vocoder  per second of audio, beside Mimi's decoder and HiFi-GAN V1
  load     time of from_pretrained, resident memory
Each part's figures are written to OUT/PART.json as soon as it is done. The last line printed is one JSON
object."""


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "bench",
        help=HELP,
        description=f"{HELP}. Real time is 80 ms per frame.",
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model(p)
    add_parts(p, PARTS)
    p.add_argument(
        "--quick", action="store_true", help="a few frames of nano alone: only checks that it runs"
    )
    p.add_argument(
        "--frames",
        type=int,
        default=2000,
        metavar="N",
        help="frames of the 530M, int8, two threads (default 2000)",
    )
    p.add_argument(
        "--threads", type=int, default=2, metavar="N", help="CPU threads of peers, kernels (default 2)"
    )
    p.add_argument(
        "--device",
        default="cpu",
        help="cpu or cuda: step and growth only; peers, vocoder and load are of the CPU",
    )
    p.add_argument(
        "--out", default="out/bench", metavar="DIR", help="for figures and plots (default out/bench)"
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    if args.threads < 1 or args.frames < 1:
        raise ValueError(
            f"--threads is {args.threads} and --frames is {args.frames}; expected 1 or more of both"
        )
    check_device(args.device)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    run_part = {
        "step": lambda: bench_step.run(args.model, args.device, args.frames, args.quick),
        "kernels": lambda: {} if args.quick else bench_kernels.run(args.threads),
        "peers": lambda: bench_peers.run(args.model, args.quick, args.threads),
        "growth": lambda: bench_growth.run(args.model, out, args.quick, args.device),
        "vocoder": lambda: bench_vocoder.run(args.model, args.quick),
        "load": lambda: bench_vocoder.run_load(args.model, args.quick),
    }
    result: dict = {"command": "bench", "machine": machine(args.device), "date": date.today().isoformat()}
    for part in PARTS:
        if part not in args.parts or (
            part in ("kernels", "peers", "vocoder", "load") and args.device != "cpu"
        ):
            continue
        print(f"\n== {part}")
        began = time.perf_counter()
        result[part] = run_part[part]() | {"bench_seconds": time.perf_counter() - began}
        (out / f"{part}.json").write_text(
            json.dumps(result[part] | {k: result[k] for k in ("machine", "date")}, indent=1) + "\n"
        )
    print(json.dumps(result))


def machine(device: str) -> str:
    """What it ran on, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    from michiai.kernels_build_michiai import has_kernels

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()
    kernels = "our kernels" if has_kernels() else "no compiler"
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, {kernels}"
