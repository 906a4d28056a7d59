"""A deeper listen head that hears what a shallower one hears: `python scripts/grow.py LISTEN.safetensors OUT.safetensors --after 2 4`.

A copy of each named layer follows it, with output projections of zero: it adds nothing yet, and training goes on from there
(function-preserving growth, Net2Net, arXiv 1511.05641; zeroed outputs as in arXiv 2401.02415).
"""

import argparse
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LAYER = re.compile(r"(listen\.transformer\.layers\.)(\d+)(\..+)")
OUTPUTS = (".attention.out.weight", ".feed_forward.down.weight")


def grow(weights: dict[str, Tensor], after: list[int]) -> dict[str, Tensor]:
    """`weights` with a silent copy of each layer of `after` behind it."""
    places = {int(match[2]) for name in weights if (match := LAYER.fullmatch(name))}
    if unknown := set(after) - places:
        raise ValueError(f"--after names the layers {sorted(unknown)}; the file has {sorted(places)}")
    grown = {}
    for name, value in weights.items():
        match = LAYER.fullmatch(name)
        if match is None:
            grown[name] = value
            continue
        prefix, layer, rest = match[1], int(match[2]), match[3]
        place = layer + sum(other < layer for other in after)
        grown[f"{prefix}{place}{rest}"] = value
        if layer in after:
            grown[f"{prefix}{place + 1}{rest}"] = torch.zeros_like(value) if rest in OUTPUTS else value.clone()
    return grown


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("weights", type=Path, help="model.safetensors of a listen run")
    p.add_argument("out", type=Path, help="file to write")
    p.add_argument("--after", type=int, nargs="+", required=True, help="layers, from 0, behind which a new one stands")
    args = p.parse_args()
    save_file(grow(load_file(args.weights), args.after), args.out)


if __name__ == "__main__":
    main()
