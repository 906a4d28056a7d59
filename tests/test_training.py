"""The training loop that all stages share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from michiai.training.common import fit, learning_rate, load_part, optimizers, save_tensors

from helpers import ROOT
from tiny_stage import TinyStage, arguments, batches


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_loss_falls_and_everything_is_written(tmp_path: Path, capsys) -> None:
    fit(TinyStage(), batches, arguments(tmp_path))
    values = losses(tmp_path)
    assert len(values) == 60 and np.mean(values[-10:]) < 0.4 * np.mean(values[:10])
    assert {path.name for path in tmp_path.iterdir()} == {
        "last.safetensors",
        "model.safetensors",
        "log.jsonl",
        "loss.png",
    }
    assert (tmp_path / "loss.png").stat().st_size > 3000
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 60 and all(name in lines[-1] for name in ("step 59", "loss", "rate", "eta_s"))
    assert set(load_file(tmp_path / "model.safetensors")) == set(TinyStage().state_dict())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_resuming_repeats_the_uninterrupted_run_bit_for_bit(tmp_path: Path, ema: float | None) -> None:
    options = ("--steps", "20", "--save-every", "7")
    fit(TinyStage(noise=0.1), batches, arguments(tmp_path / "whole", *options), ema=ema)

    def killed(step: int, rng: np.random.Generator, n: int) -> dict:
        if step == 16:
            raise KeyboardInterrupt
        return batches(step, rng, n)

    with pytest.raises(KeyboardInterrupt):
        fit(TinyStage(noise=0.1), killed, arguments(tmp_path / "cut", *options), ema=ema)
    torch.manual_seed(99)
    fit(TinyStage(noise=0.1), batches, arguments(tmp_path / "cut", *options), ema=ema)
    for name in ("model.safetensors", "last.safetensors"):
        whole, cut = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        assert whole.keys() == cut.keys() and all(torch.equal(whole[k], cut[k]) for k in whole), name
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_batches_made_ahead_are_the_same(tmp_path: Path) -> None:
    fit(TinyStage(noise=0.1), batches, arguments(tmp_path / "in turn", "--steps", "12"))
    fit(TinyStage(noise=0.1), batches, arguments(tmp_path / "ahead", "--steps", "12", "--workers", "2"))
    assert losses(tmp_path / "in turn") == losses(tmp_path / "ahead")


def test_two_processes_give_the_loss_of_one(tmp_path: Path) -> None:
    fit(TinyStage(), batches, arguments(tmp_path / "one", "--steps", "12"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(ROOT / "tests" / "tiny_stage.py"), str(tmp_path / "two"), "--steps", "12"]
    done = subprocess.run(command, text=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "process 1 of 2" in done.stdout  # a launcher that starts one alone would pass all that follows
    assert np.allclose(losses(tmp_path / "one"), losses(tmp_path / "two"), rtol=1e-5)
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    assert all(torch.allclose(one[k], two[k], atol=1e-5) for k in one)


def test_muon_trains_hidden_matrices_and_adamw_the_rest() -> None:
    stage = torch.nn.ModuleDict({"table": torch.nn.Embedding(40, 20), "frozen": torch.nn.Linear(20, 20), "tied": torch.nn.Linear(20, 40)})
    stage["tied"].weight = stage["table"].weight
    stage["frozen"].requires_grad_(False)
    stage.update({"hidden": torch.nn.Linear(20, 30), "gate": torch.nn.Linear(20, 4), "conv": torch.nn.Conv1d(20, 20, 3)})
    muon, adamw = ({id(p) for group in one.param_groups for p in group["params"]} for one in optimizers(stage, 1e-3, 0.0))
    assert muon == {id(stage["hidden"].weight)}
    assert muon | adamw == {id(p) for p in stage.parameters() if p.requires_grad} and not muon & adamw


def test_learning_rate_warms_up_and_falls_to_a_tenth() -> None:
    args = arguments("unused", "--lr", "1.0", "--steps", "100", "--warmup", "10")
    rates = [learning_rate(step, args) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01) and max(rates) < 1 and rates[-1] == pytest.approx(0.1)
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {f"x.{k}": v for k, v in TinyStage().state_dict().items()})
    load_part(TinyStage(), tmp_path / "a.safetensors", "x.")
    with pytest.raises(ValueError, match="lacks .*'y.part.0.weight'"):
        load_part(TinyStage(), tmp_path / "a.safetensors", "y.")


def test_a_batch_that_does_not_divide_is_named(tmp_path: Path, monkeypatch) -> None:
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(SystemExit, match="--batch 16 does not divide among 3 processes"):
        fit(TinyStage(), batches, arguments(tmp_path))
