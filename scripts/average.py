"""Average the weights of runs that started from the same ones ("model soup", arXiv 2203.05482): often better than each of them.

    python scripts/average.py --out MEAN.safetensors 0.2 model.safetensors 0.4 RUN/a/model.safetensors 0.4 RUN/b/model.safetensors

The mean holds the tensors that all files hold, in float32; with --also letters those of that name, too, which some files may lack:
released weights have no letter head, so that a run that starts from them must begin it anew.
"""

import argparse
import math

from safetensors.torch import load_file, save_file
from torch import Tensor


def average(shares: list[float], files: list[dict[str, Tensor]], also: str | None = None) -> dict[str, Tensor]:
    """The mean of the tensors that all `files` hold, weighted by `shares`, which sum to 1.

    Args:
        also: what the names of further tensors begin with; these are the mean of the files that hold them.
    """
    if not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"the shares are {shares}, which sum to {sum(shares):g}; expected 1")
    common = set.intersection(*(set(file) for file in files))
    if not common:
        raise ValueError("the files have no tensor's name in common; expected checkpoints of one stage")
    more = {name for file in files for name in file if also and name.startswith(also)}
    mean = {}
    for name in sorted(common | more):
        holding = [(share, file[name].float()) for share, file in zip(shares, files, strict=True) if name in file]
        if len(shapes := {tuple(tensor.shape) for _, tensor in holding}) > 1:
            raise ValueError(f"{name} has the shapes {sorted(shapes)}; expected one: are the checkpoints of one size?")
        mean[name] = sum(share * tensor for share, tensor in holding) / sum(share for share, _ in holding)
    return mean


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("pairs", nargs="+", metavar="SHARE FILE", help="a share and a checkpoint, in turns")
    p.add_argument("--also", metavar="NAME", help="take tensors whose names begin so from the files that hold them, though some lack them")
    p.add_argument("--out", required=True, help="safetensors to write")
    args = p.parse_args()
    if len(args.pairs) % 2:
        p.error(f"{len(args.pairs)} arguments were given; expected a share before each file")
    try:
        shares = [float(share) for share in args.pairs[::2]]
    except ValueError as error:
        p.error(f"{error}; expected a share before each file")
    save_file(average(shares, [load_file(path) for path in args.pairs[1::2]], args.also), args.out)


if __name__ == "__main__":
    main()
