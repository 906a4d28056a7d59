"""A stage that is trained in a second, for tests of the loop: `python tiny_stage.py OUT [options of the parser]`."""

import argparse
import sys

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor, nn

from michiai.training.common import fit, parser


class TinyStage(nn.Module):
    """Regression of a fixed nonlinear function; `noise` makes the loss random."""

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1))
        self.seldom = nn.Linear(5, 1)  # takes part in every second step only, as the speak head does
        self.noise = noise

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        x = batch["x"] + self.noise * torch.randn_like(batch["x"])
        guess = self.part(x) + (self.seldom(x) if step % 2 else 0)
        error = (guess - batch["y"]).square().mean()
        return {"loss": error, "root": error.sqrt().detach()}


def batches(step: int, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
    x = torch.from_numpy(rng.standard_normal((n, 5))).float()
    return {"x": x, "y": (x[:, :1] * x[:, 1:2]).tanh() + x[:, 2:3]}


def arguments(out: object, *options: str) -> argparse.Namespace:
    fixed = ["--out", str(out), "--device", "cpu", "--mixed-precision", "no", "--warmup", "5"]
    return parser("tiny", steps=60, batch=16, lr=1e-2).parse_args([*fixed, *options])


if __name__ == "__main__":
    state = PartialState(cpu=True)
    print(f"process {state.process_index} of {state.num_processes}", flush=True)
    fit(TinyStage(), batches, arguments(*sys.argv[1:]))
