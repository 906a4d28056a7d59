"""Stage 2: the text LLM of nano, from dialogues of the grammar as plain text.

    python -m michiai.training.text --tokenizer RUN/tokenizer --out RUN/table
    python -m michiai.training.text --tokenizer RUN/tokenizer --out RUN/text --init RUN/table/model.safetensors

The release model skips this stage: it starts from SmolLM-360M (`scripts/warm_start.py`). The embedding table that comes out
of the first call is frozen from then on, so that the listen head can be trained beside the backbone.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer

from michiai.backbone_michiai import Backbone
from michiai.configuration_michiai import MichiAIConfig
from michiai.data.grammar import make_script
from michiai.data.mishear import misheard
from michiai.data.text import dialogue_text
from michiai.training.common import fit, load_part, parser, read_config, train_attention

OTHER_WEIGHT = 0.1  # of the words that are not the model's own: contexts and questions are random draws
MOST_TOKENS = 320  # of a dialogue


class TextStage(nn.Module):
    """Next-token prediction; the model's own words count fully."""

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        train_attention(self.backbone.language_model)
        self.turn, self.done = config.special_tokens["<turn>"], config.special_tokens["<done>"]

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        tokens = batch["tokens"]  # [B, T], 0 after the end
        logits = self.backbone.text_logits(self.backbone(self.backbone.embed_text(tokens))[:, :-1]).float()
        targets, mine = tokens[:, 1:], own_words(tokens, self.turn, self.done)[:, 1:]
        real = targets > 0
        losses, mine = F.cross_entropy(logits[real], targets[real], reduction="none"), mine[real]
        right = logits[real].argmax(-1) == targets[real]
        return {"loss": weighted(losses, mine), "own": losses[mine].mean(), "accuracy": right[mine].float().mean()}


def weighted(losses: Tensor, mine: Tensor) -> Tensor:
    """Mean over tokens [N]; those of the model's own answers count fully."""
    weight = torch.where(mine, 1.0, OTHER_WEIGHT)
    return (losses * weight).sum() / weight.sum()


def own_words(tokens: Tensor, turn: int, done: int) -> Tensor:
    """Mask [B, T] of the model's answers: after `<turn>` up to and with `<done>`."""
    opened, closed = (tokens == turn).cumsum(1), (tokens == done).cumsum(1)
    return (opened > closed - (tokens == done).long()) & (tokens != turn)


def draw_text(rng: np.random.Generator) -> str:
    """A dialogue in which the model says something, as plain text, now and then misheard."""
    while True:
        script = misheard(rng, make_script(rng, "train"))
        if any(turn.who == "model" for turn in script.turns):
            return dialogue_text(script, rng)


class TextBatches:
    """Dialogues of similar length, as token ids [n, T] padded with 0."""

    def __init__(self, tokenizer_path: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(tokenizer_path)

    def __call__(self, step: int, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        texts = [draw_text(rng) for _ in range(4 * n)]
        ids = sorted(self.tokenizer(texts)["input_ids"], key=len)
        first = int(rng.integers(0, len(ids) - n + 1))
        rows = [torch.tensor(row[:MOST_TOKENS]) for row in ids[first : first + n]]
        return {"tokens": nn.utils.rnn.pad_sequence(rows, batch_first=True)}


def main() -> None:
    p = parser(__doc__.splitlines()[0], steps=3000, batch=64, lr=1.5e-3)
    p.add_argument("--tokenizer", required=True, help="folder of the tokenizer (michiai.training.tokenizer)")
    p.add_argument("--init", help="go on from these weights, with the embedding table frozen")
    args = p.parse_args()
    torch.manual_seed(args.seed)
    batches = TextBatches(args.tokenizer)
    config = read_config(args.config, batches.tokenizer)
    stage = TextStage(config)
    if args.init:
        load_part(stage, args.init)
        stage.backbone.language_model.get_input_embeddings().requires_grad_(False)
    fit(stage, batches, args)


if __name__ == "__main__":
    main()
