"""What every training stage shares: arguments, the loop, the log, the exactly resumable checkpoint.

A stage is an `nn.Module` whose call takes a batch and the step and returns named scalar losses; `loss` is minimised.
Batches and torch's random numbers are functions of (seed, step), so that nothing but weights, optimizer and step needs
saving, and a resumed run repeats the uninterrupted one bit for bit.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import AttentionInterface, PreTrainedTokenizerBase

from michiai.configuration_michiai import MichiAIConfig, nano_text_config
from michiai.optimize_michiai import half_is_fast
from michiai.streaming_michiai import attend

BatchFn = Callable[[int, np.random.Generator, int], dict[str, Tensor]]
NARROW = 16  # a matrix with fewer rows or columns is no hidden layer's: AdamW trains it


def parser(description: str, *, steps: int, batch: int, lr: float) -> argparse.ArgumentParser:
    """The arguments that all stages have."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--out", type=Path, required=True, help="folder of this run: checkpoint, log, plot")
    add_config(p)
    p.add_argument("--steps", type=int, default=steps, help="optimizer steps in all")
    p.add_argument("--batch", type=int, default=batch, help="examples per step, over all processes")
    p.add_argument("--lr", type=float, default=lr, help="peak learning rate; warm-up, then a cosine to a tenth")
    p.add_argument("--warmup", type=int, default=100, help="steps of warm-up")
    p.add_argument("--weight-decay", type=float, default=0.02)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    p.add_argument("--workers", type=int, default=0, help="processes that make batches ahead, so that a GPU need not wait; 0: none")
    p.add_argument("--mixed-precision", choices=("no", "bf16", "auto"), default="auto", help="auto: bf16 where its products are fast")
    p.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU where there is one")
    p.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    p.add_argument("--log-every", type=int, default=1, help="steps between log lines")
    return p


def add_config(p: argparse.ArgumentParser) -> None:
    """`--config`, which means the same in every stage."""
    p.add_argument("--config", type=Path, metavar="FOLDER",
                   help="folder with config.json, for instance one that scripts/warm_start.py wrote; nano if left out")


def read_config(folder: Path | None, tokenizer: PreTrainedTokenizerBase | None = None) -> MichiAIConfig:
    """The configuration in `folder`, which must fit `tokenizer`; without a folder nano's, with as many pieces as that has."""
    if folder is None:
        return MichiAIConfig(text_config=nano_text_config(len(tokenizer))) if tokenizer else MichiAIConfig()
    config = MichiAIConfig.from_pretrained(folder)
    if tokenizer:
        vocabulary, size = tokenizer.get_vocab(), config.text_config.vocab_size
        other = {name: i for name, i in config.special_tokens.items() if name != "<pad>" and vocabulary.get(name) != i}
        if other or len(tokenizer) > size:
            raise ValueError(f"{folder} is for another tokenizer: {other} are not its ids of these tokens, or it has more than {size} "
                             f"pieces ({len(tokenizer)}); expected config and tokenizer of one folder that scripts/warm_start.py wrote")
    return config


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a cosine from the peak to a tenth of it."""
    warm = min(1.0, (step + 1) / max(1, args.warmup))
    progress = min(1.0, step / max(1, args.steps))
    return args.lr * warm * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def save_tensors(path: Path, tensors: dict[str, Tensor], **metadata: object) -> None:
    """Write safetensors atomically: a killed run never leaves half a checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {name: t.detach().contiguous().clone() for name, t in tensors.items()}
    save_file(tensors, partial, metadata={k: str(v) for k, v in metadata.items()})
    partial.replace(path)


def load_part(module: nn.Module, path: str | Path, prefix: str = "", *, new: tuple[str, ...] = ()) -> None:
    """Load the tensors of `path` that lie under `prefix` into `module`.

    All of the module's own must be there and fit, but for those under `new`, which keep their initialisation, and the
    output table that is tied to the embedding table.
    """
    tensors = {k.removeprefix(prefix): v for k, v in load_file(str(path)).items() if k.startswith(prefix)}
    missing = [k for k in module.load_state_dict(tensors, strict=False).missing_keys
               if not k.startswith(new) and not k.endswith("lm_head.weight")]
    if missing:
        raise ValueError(f"{path} lacks {[prefix + k for k in missing[:4]]}; was it written by another stage or version?")


def optimizers(stage: nn.Module, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of hidden layers (https://kellerjordan.github.io/posts/muon), AdamW for tables, convolutions and vectors.

    Muon's steps are scaled to the size of AdamW's (arXiv 2502.16982), so one learning rate serves both.
    """
    tables = {id(module.weight) for module in stage.modules() if isinstance(module, nn.Embedding)}

    def is_hidden(p: nn.Parameter) -> bool:
        return p.ndim == 2 and min(p.shape) >= NARROW and id(p) not in tables

    parameters = [p for p in stage.parameters() if p.requires_grad]
    hidden = [p for p in parameters if is_hidden(p)]
    others = [p for p in parameters if not is_hidden(p)]
    found: list[torch.optim.Optimizer] = []
    if hidden:
        found.append(torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    if others:
        found.append(torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay))
    return found


class _Batches(Dataset):
    """The batch of a step, from (seed, step) alone."""

    def __init__(self, batch_fn: BatchFn, args: argparse.Namespace) -> None:
        self.batch_fn, self.args = batch_fn, args

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self.batch_fn(step, np.random.default_rng([self.args.seed, step]), self.args.batch)


def batches(batch_fn: BatchFn, args: argparse.Namespace, first: int) -> DataLoader:
    """The batches of the steps from `first` on, in order."""
    return DataLoader(_Batches(batch_fn, args), batch_size=None, sampler=range(first, args.steps), num_workers=args.workers,
                      pin_memory=torch.cuda.is_available())


class _Checkpoint:
    """Weights, running average, optimizer moments and step in one safetensors file."""

    def __init__(self, path: Path, stage: nn.Module, optimizers: list[torch.optim.Optimizer], average: dict[str, Tensor]):
        self.path, self.stage, self.average = path, stage, average
        owner = {id(p): optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        self.parameters = [(p, owner[id(p)]) for p in stage.parameters() if p.requires_grad]

    def save(self, step: int) -> None:
        tensors = {"w." + k: v for k, v in self.stage.state_dict().items()}
        tensors |= {"a." + k: v for k, v in self.average.items()}
        for i, (p, optimizer) in enumerate(self.parameters):
            for name, value in optimizer.state[p].items():
                tensors[f"o.{i}.{name}"] = value
        save_tensors(self.path, tensors, step=step)

    def load(self) -> int:
        if not self.path.exists():
            return 0
        tensors = load_file(str(self.path))
        self.stage.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("w.")})
        for name in self.average:
            self.average[name].copy_(tensors["a." + name])
        for i, (p, optimizer) in enumerate(self.parameters):
            own = {k.split(".", 2)[2]: v for k, v in tensors.items() if k.startswith(f"o.{i}.")}
            optimizer.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in own.items()}
        with safe_open(str(self.path), "pt") as f:
            return int(f.metadata()["step"])


def plain_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """`attend` in the form that transformers calls: [B, H, T, size], keys of fewer heads -> [B, T, H, size]."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    return attend(query, key, value, attention_mask).transpose(1, 2).contiguous(), None


def train_attention(language_model: nn.Module) -> None:
    """On CPUs, plain attention: the backward pass of the fused kernel cost a fifth of a step at these short lengths."""
    if not torch.cuda.is_available():
        AttentionInterface.register("plain", plain_attention)
        language_model.set_attn_implementation("plain")


def weights(stage: nn.Module, average: dict[str, Tensor]) -> dict[str, Tensor]:
    """State dict of `stage`, its trained parameters replaced by their running average where there is one."""
    return stage.state_dict() | average


def plot_losses(log: Path) -> None:
    """Draw every loss of `log.jsonl`, smoothed, into `loss.png` beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    names = [k for k in rows[-1] if k not in ("step", "lr", "rate", "eta_s")]
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 2.8), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        points = [(r["step"], r[name]) for r in rows if name in r]
        width = max(1, len(points) // 60)
        values = np.convolve([v for _, v in points], np.ones(width) / width, mode="valid")
        axis.plot([s for s, _ in points][width - 1 :], values)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(log.with_name("loss.png"), dpi=90)
    plt.close(figure)


class _Log:
    """One line per step with rate and ETA, printed and in a file, whose rows from step `first` on are of a run that was killed after
    its last checkpoint.
    """

    def __init__(self, path: Path, first: int, steps: int) -> None:
        self.path, self.first, self.steps, self.began = path, first, steps, time.monotonic()
        rows = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(row for row in rows if json.loads(row)["step"] < first))

    def write(self, row: dict[str, float]) -> None:
        done = row["step"] + 1
        rate = (done - self.first) / (time.monotonic() - self.began)
        row |= {"rate": rate, "eta_s": (self.steps - done) / rate}
        print(" ".join(f"{name} {value:.4g}" for name, value in row.items()), flush=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def fit(stage: nn.Module, batch_fn: BatchFn, args: argparse.Namespace, *, ema: float | None = None) -> None:
    """Train `stage` to `args.steps`, resuming from `args.out` where a checkpoint lies there.

    Each process takes its share of the global batch, which depends on (seed, step) alone: any number of processes
    sees the same examples. `args.out/model.safetensors` holds the weights (averaged where `ema` is given).
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    torch.set_num_threads(args.threads)
    partly = DistributedDataParallelKwargs(find_unused_parameters=True)  # a batch may leave a part out: virtual frames have no sound
    on_cpu = args.device == "cpu" or not torch.cuda.is_available()
    precision = ("bf16" if half_is_fast("cpu" if on_cpu else "cuda") else "no") if args.mixed_precision == "auto" else args.mixed_precision
    accelerator = Accelerator(mixed_precision=precision, cpu=args.device == "cpu", kwargs_handlers=[partly])
    rank, world = accelerator.process_index, accelerator.num_processes
    if args.batch % world:
        raise SystemExit(f"--batch {args.batch} does not divide among {world} processes; choose a multiple")
    parameters = [p for p in stage.parameters() if p.requires_grad]
    stage.to(accelerator.device)
    plain = optimizers(stage, args.lr, args.weight_decay)
    average = {k: p.detach().clone() for k, p in stage.named_parameters() if p.requires_grad} if ema else {}
    checkpoint = _Checkpoint(args.out / "last.safetensors", stage, plain, average)
    first = checkpoint.load()
    wrapped, *stepping = accelerator.prepare(stage, *plain)
    args.out.mkdir(parents=True, exist_ok=True)
    log = _Log(args.out / "log.jsonl", first, args.steps) if accelerator.is_main_process else None
    for step, batch in enumerate(batches(batch_fn, args, first), first):
        share = {k: v[rank * (args.batch // world) : (rank + 1) * (args.batch // world)].to(accelerator.device, non_blocking=True)
                 for k, v in batch.items()}
        torch.manual_seed(hash((args.seed, step, rank)) % 2**31)
        with accelerator.autocast():
            losses = wrapped(share, step)
        accelerator.backward(losses["loss"])
        norm = accelerator.clip_grad_norm_(parameters, 1.0)
        for optimizer in stepping:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, args)
            if torch.isfinite(norm):
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if average:
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), parameters, 1 - min(ema, (1 + step) / (10 + step)))
        stage_step = step + 1
        if step % args.log_every == 0 or stage_step == args.steps:
            shown = {k: accelerator.reduce(v.detach().float(), "mean").item() for k, v in losses.items()}
            if log:
                log.write({"step": step, **shown, "lr": learning_rate(step, args)})
        if log and (stage_step % args.save_every == 0 or stage_step == args.steps):
            checkpoint.save(stage_step)
            save_tensors(args.out / "model.safetensors", weights(stage, average), step=stage_step)
            plot_losses(log.path)
    accelerator.wait_for_everyone()  # a process that leaves while another still writes lets that one hang
    losses = wrapped = None  # they hold the process group: its threads would end with the interpreter, which now and then aborts it
    accelerator.free_memory()
    accelerator.end_training()
