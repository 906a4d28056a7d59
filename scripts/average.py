"""Average the weights of runs that started from the same ones ("model soup", arXiv 2203.05482): often better than each of them.

    python scripts/average.py --out MEAN.safetensors 0.2 model.safetensors 0.4 RUN/a/model.safetensors 0.4 RUN/b/model.safetensors

The mean holds the tensors that all files hold, in float32.
"""

import argparse
import math

from safetensors.torch import load_file, save_file
from torch import Tensor


def average(shares: list[float], files: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the tensors that all `files` hold, weighted by `shares`, which sum to 1."""
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"the shares are {shares}, which sum to {sum(shares):g}; expected 1")
    common = set.intersection(*(set(file) for file in files))
    if not common:
        raise ValueError("the files have no tensor's name in common; expected checkpoints of one stage")
    for name in sorted(common):
        if len(shapes := {tuple(file[name].shape) for file in files}) > 1:
            raise ValueError(f"{name} has the shapes {sorted(shapes)}; expected one: are the checkpoints of one size?")
    return {name: sum(share * file[name].float() for share, file in zip(shares, files, strict=True)) for name in sorted(common)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("pairs", nargs="+", metavar="SHARE FILE", help="a share and a checkpoint, in turns")
    p.add_argument("--out", required=True, help="safetensors to write")
    args = p.parse_args()
    if len(args.pairs) % 2:
        p.error(f"{len(args.pairs)} arguments were given; expected a share before each file")
    try:
        shares = [float(share) for share in args.pairs[::2]]
    except ValueError as error:
        p.error(f"{error}; expected a share before each file")
    save_file(average(shares, [load_file(path) for path in args.pairs[1::2]]), args.out)


if __name__ == "__main__":
    main()
