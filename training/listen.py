"""Train the listen head: streaming recognition and the turn gate, on a frozen text embedding table.

    python -m michiai.training.listen --data SHARDS --tokenizer FOLDER --table TEXT.safetensors --out OUT
    python -m michiai.training.listen --data shards/test ... --evaluate OUT/model.safetensors

The first trains and writes OUT/model.safetensors (keys `listen.*`); the second listens to whole dialogues,
feeding back what it heard itself, and prints word errors per speech engine.
"""

import argparse
import json
import math
from collections import defaultdict

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from michiai.configuration_michiai import MichiAIConfig
from michiai.evaluation.words import word_errors
from michiai.listen_michiai import PAD_ID, ListenHead, token_logits, transcribe_frames
from michiai.training import common
from michiai.training.audio_data import (
    USER,
    ListenBatches,
    Shards,
    augment_audio,
    augment_mel,
    noise_bank,
    uniform,
    warp_mel,
)

TABLE = "backbone.language_model.model.embed_tokens.weight"
PAD_WEIGHT = 0.3  # nothing is new in most frames
TURN_WEIGHT = 0.3
LETTER_WEIGHT = 0.4
LETTERS = 28  # silence, a to z, another
LETTERS_ALONE = 300  # steps in which a new letter head learns from the rest, and the rest not from it


class ListenStage(nn.Module):
    """The listen head with its losses.

    Args:
        table: the text LLM's embedding table [V, W]; not trained.
        augment: change voices, rate, noise and colour.
    """

    def __init__(self, config: MichiAIConfig, table: Tensor, augment: bool = True) -> None:
        super().__init__()
        self.config, self.augment = config, augment
        self.listen = ListenHead(config, table.shape[1])
        self.letters = nn.Linear(
            config.listen_config.width, 2 * LETTERS
        )  # only teaches: letters heard one frame ago
        self.letters_teach_from = 0  # the step
        self.middle = Tensor()  # what the second layer heard in the last call [B, T, D]
        self.listen.transformer.layers[1].register_forward_hook(self._keep)
        self.register_buffer("table", table.clone(), persistent=False)  # belongs to the backbone's checkpoint
        self.register_buffer("bank", noise_bank(40, config.sampling_rate), persistent=False)

    def _keep(self, layer: nn.Module, given: tuple, output: Tensor) -> None:
        self.middle = output

    @torch.no_grad()
    def features(self, batch: dict[str, Tensor]) -> Tensor:
        """Log-mel [B, K, M] of the clips, at their rates."""
        n_mel = batch["tokens"].shape[1] * (
            self.config.frame_size * self.config.listen_config.mel_rate // self.config.sampling_rate
        )
        audio = batch["audio"].float() / 32768
        device = audio.device
        if self.augment:
            audio = augment_audio(audio, self.bank, self.config.sampling_rate)
        with torch.autocast(device.type, enabled=False):
            mel = self.listen.mel(audio)
            stretch = torch.exp(uniform(len(mel), -0.13, 0.13, device, chance=0.7 * self.augment))
            mel = warp_mel(mel, batch["rate"].to(device), n_mel, stretch, self.config.sampling_rate / 2)
            return augment_mel(mel) if self.augment else mel

    def feedback(self, tokens: Tensor) -> Tensor:
        """The tokens fed back: those of one frame before, some of them lost, misheard or made up."""
        previous = F.pad(tokens[:, :-1], (1, 0), value=PAD_ID)
        chance = torch.rand(previous.shape, device=tokens.device)
        random = torch.randint_like(previous, len(self.table))
        heard = previous != PAD_ID
        previous = torch.where(heard & (chance < 0.06), PAD_ID, previous)
        deaf = torch.rand(len(tokens), 1, device=tokens.device) < 0.2  # rows that must do without
        previous = torch.where(deaf, PAD_ID, previous)
        return torch.where((heard & (chance > 0.92)) | (chance > 0.995), random, previous)

    def letter_loss(self, letters: Tensor, step: int) -> Tensor:
        """Cross entropy of the letters [B, 2 T], two a frame, one frame after they were said."""
        wanted = letters.view(len(letters), -1, 2)[:, :-1].reshape(-1)
        middle = self.middle if step >= self.letters_teach_from else self.middle.detach()
        logits = self.letters(middle[:, 1:]).float().reshape(-1, LETTERS)
        self.middle = Tensor()
        weight = torch.where(wanted > 0, 1.0, 0.1)
        return (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        tokens, (turn, turn_weight) = batch["tokens"], batch["turn"].unbind(1)
        sound = self.listen.encode(self.features(batch))
        heard = self.listen.attend(sound, F.embedding(self.feedback(tokens), self.table))
        due = tokens != PAD_ID
        weight = torch.where(due, 1.0, PAD_WEIGHT)
        weighted = heard.emit_logits.float() - math.log(PAD_WEIGHT)  # the weight's bias stays out of the head
        emit = F.binary_cross_entropy_with_logits(
            weighted, due.float(), weight, reduction="sum"
        )
        logits = token_logits(heard.text_hidden[due], self.table)
        word = F.cross_entropy(logits, tokens[due], reduction="sum")
        turns = F.binary_cross_entropy_with_logits(
            heard.turn_logits.float(), turn, turn_weight, reduction="sum"
        )
        n_due = due.sum().clamp(min=1)
        losses = {
            "emit": emit / weight.sum(),
            "word": word / n_due,
            "turn": turns / turn_weight.sum().clamp(min=1),
        }
        losses["letter"] = self.letter_loss(batch["letters"], step)
        losses["loss"] = (
            (word + emit) / weight.sum() + TURN_WEIGHT * losses["turn"] + LETTER_WEIGHT * losses["letter"]
        )
        correct = (logits.argmax(-1) == tokens[due]).sum() / n_due
        return losses | {"token_accuracy": correct.detach()}


def plain_words(text: str) -> list[str]:
    """Words to compare: breaths, laughs and other sounds left out."""
    return [word for word in text.split() if not word.startswith("<")]


def listen_to(listen: ListenHead, table: Tensor, shards: Shards, frame_size: int, limit: int, size: int = 16):
    """Yield (dialogue info, tokens [T], turn logits [T]) of the users, batched by length."""
    entries = sorted(shards.entries[: limit or None], key=lambda entry: entry.length)
    for first in range(0, len(entries), size):
        group = entries[first : first + size]
        longest = max(entry.length for entry in group)
        n_samples = -(-(longest + frame_size) // frame_size) * frame_size
        audio = np.stack([shards.samples(entry, USER, 0, n_samples) for entry in group])
        tokens, _, turns = transcribe_frames(listen, table, torch.from_numpy(audio).float() / 32768)
        yield from zip([entry.info for entry in group], tokens, turns, strict=True)


def evaluate(
    listen: ListenHead,
    table: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    shards: Shards,
    frame_size: int,
    limit: int,
) -> dict[str, dict[str, float]]:
    """Word error rate, free running, and the turn gate's hits, per speech engine of the user's voice."""
    counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for info, tokens, turns in listen_to(listen, table, shards, frame_size, limit):
        text = tokenizer.decode(tokens[tokens != PAD_ID].tolist())
        wanted = plain_words(" ".join(word for word, _, _ in info["user_words"]))
        errors = word_errors(wanted, plain_words(text))
        gate = turns > 0
        for key in (
            "all",
            str(info["user_voice"]).split("-")[0].split(":")[0],
            "behaviour " + info["behaviour"],
        ):
            row = counts[key]
            row["dialogues"] += 1
            row["words"] += len(wanted)
            row["errors"] += errors
            for turn in info["turns"]:
                if turn["who"] == "user" and turn["timing"] != "backchannel":
                    last, frame_s = turn["end"], frame_size / shards.sampling_rate
                    after = gate[int((last + 0.24) / frame_s) : int((last + 0.64) / frame_s)]
                    during = gate[int((turn["start"] + 0.3) / frame_s) : int(last / frame_s)]
                    row["turns"] += 1
                    row["ends_found"] += float(after.any())
                    row["false_ends"] += float(during.any())
    for row in counts.values():
        row["wer"] = row["errors"] / max(1.0, row["words"])
    return {key: dict(row) for key, row in sorted(counts.items())}


def report(results: dict[str, dict[str, float]]) -> None:
    print(f"{'voices':28s} dialogues   words word errors ends found false ends")
    for key, row in results.items():
        turns = max(1.0, row.get("turns", 0.0))
        print(
            f"{key:28s} {row['dialogues']:9.0f} {row['words']:7.0f} {row['wer']:11.2%} "
            f"{row.get('ends_found', 0) / turns:10.1%} {row.get('false_ends', 0) / turns:10.1%}"
        )
    print(json.dumps({"evaluation": "listen", "results": results}))


def load_table(path: str) -> Tensor:
    """The text LLM's embedding table [V, W] from the text stage's checkpoint."""
    with safe_open(path, "pt") as file:
        return file.get_tensor(TABLE).float()


def arguments() -> argparse.Namespace:
    parser = common.parser(__doc__, steps=4000, batch=16, lr=1e-3)
    parser.add_argument("--data", required=True, nargs="+", help="folders of shards")
    parser.add_argument("--shards", type=int, default=0, help="use the first so many only (0: all)")
    parser.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    parser.add_argument("--table", required=True, help="text stage checkpoint that holds the embedding table")
    parser.add_argument("--clip-frames", type=int, default=120, help="frames per clip")
    parser.add_argument("--init", default="", help="weights with listen.* to go on from")
    parser.add_argument(
        "--evaluate", default="", help="listen checkpoint: evaluate it on --data instead of training"
    )
    parser.add_argument("--limit", type=int, default=0, help="evaluate so many dialogues only (0: all)")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer, trust_remote_code=True)
    config = common.read_config(args.config, tokenizer)
    stage = ListenStage(config, load_table(args.table))
    shards = Shards(*args.data, sampling_rate=config.sampling_rate, limit=args.shards)
    if args.evaluate:
        common.load_part(stage.listen, args.evaluate, "listen.")
        stage.eval()
        report(evaluate(stage.listen, stage.table, tokenizer, shards, config.frame_size, args.limit))
        return
    if args.init:
        common.load_part(stage, args.init, new=("letters",))
        with safe_open(args.init, "pt") as file:  # a released one holds no letter head: a new one would shake the rest
            stage.letters_teach_from = 0 if "letters.weight" in file.keys() else LETTERS_ALONE
    n_weights = sum(p.numel() for p in stage.parameters())
    print(f"{len(shards.entries)} dialogues, {shards.hours():.1f} h, {n_weights:,} weights")
    batches = ListenBatches(
        shards,
        tokenizer,
        args.clip_frames,
        config.listen_config.delay,
        config.frame_size,
        config.sampling_rate,
    )
    common.fit(stage, batches, args, ema=0.998)


if __name__ == "__main__":
    main()
