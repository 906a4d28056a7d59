"""Stage 5: everything together. The backbone learns to converse in frames and the speak head to sound.

    python -m michiai.training.duplex --text RUN/table/model.safetensors --tokenizer RUN/tokenizer --out RUN/virtual
    python -m michiai.training.duplex --init RUN/virtual/model.safetensors --frames RUN/frames --readings RUN/readings \
        --tokenizer RUN/tokenizer --out RUN/duplex

The first call needs no sound at all: virtual dialogues are frames of text. It runs while codec and listen head are trained.
In a dialogue the model speaks in a third of the frames, and most words are rare; in a reading it seldom is silent, and has many.

The embedding table, the listen head and the codec are frozen; every step also holds pure text.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer

from michiai.backbone_michiai import Backbone
from michiai.configuration_michiai import MichiAIConfig
from michiai.lanes_michiai import SOUND, newest_text
from michiai.speak_michiai import SpeakHead, flow_matching_loss, self_distillation_loss
from michiai.training.common import fit, load_part, parser, read_config, train_attention
from michiai.training.frames import IGNORE, Rows
from michiai.training.text import own_words, weighted

PAD_WEIGHT = 0.3  # most frames hold nothing new
DRAWS = 4  # of noise and time per position, for flow matching
DISTIL_SHARE = 0.25
HISTORY_NOISE = 0.4  # at most, in what was said before: on one's own past latents are not quite right either
BLENDED = 0.5  # of the rows
VOICELESS = 0.1  # of the rows, so that guidance knows what it goes away from (arXiv 2207.12598)


class DuplexStage(nn.Module):
    """Text and flow losses over spoken and virtual dialogues and text."""

    def __init__(self, config: MichiAIConfig) -> None:
        super().__init__()
        self.backbone, self.speak_head = Backbone(config), SpeakHead(config)
        train_attention(self.backbone.language_model)
        self.turn, self.done = config.special_tokens["<turn>"], config.special_tokens["<done>"]

    def positions(self, batch: dict[str, Tensor]) -> Tensor:
        """Rows of all kinds of positions -> backbone input [n, P, D]."""
        b, frame = self.backbone, batch["frame"]
        latents = self.noisy(batch["latent"], frame)
        frames = b.embed_frames(batch["heard"], batch["user"], latents, batch["own"], frame=frame)
        text = (batch["text"] != 0)[..., None]
        x = torch.where(text, b.embed_text(batch["text"]), b.embed_latents(latents))
        return torch.where(frame[..., None], frames, x)

    def blended(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Half of the rows in voices between their own and another of the batch, which are many more than were ever recorded: what is
        to be learned is to go on as the voice prompt sounds, not to know the voices of training.

        The mean of a row's voice prompt moves some of the way to that of another row's, and its frames with it: those that are as far
        from silence as that mean wholly, those half as far by a quarter, silence not at all.
        """
        latent, goal, frame = batch["latent"], batch["goal"], batch["frame"]
        there = latent.abs().sum(-1, keepdim=True) > 0
        prompt = there & (batch["kind"] == SOUND)[..., None] & ~frame[..., None]
        count = prompt.sum(1)
        mean, other = (latent * prompt).sum(1) / count.clamp(min=1), torch.randperm(len(latent), device=latent.device)
        share = torch.rand_like(mean[:, :1]) * (torch.rand_like(mean[:, :1]) < BLENDED) * (count > 0) * (count[other] > 0)
        shift = (share * (mean[other] - mean))[:, None]
        silence = goal[torch.arange(len(goal)), frame.int().argmax(1)][:, None]  # a conversation begins with it
        far = (mean[:, None] - silence).norm(dim=-1, keepdim=True).clamp(min=1e-3)

        def moved(z: Tensor, where: Tensor) -> Tensor:
            return z + where * shift * ((z - silence).norm(dim=-1, keepdim=True) / far).clamp(max=1).square()

        return {**batch, "latent": moved(latent, there), "goal": moved(goal, frame[..., None])}

    def voiceless(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Some of the rows with zeros in place of their voice prompt."""
        told = (batch["kind"] != SOUND) | batch["frame"] | (torch.rand(len(batch["kind"]), 1, device=batch["kind"].device) >= VOICELESS)
        return {**batch, "latent": batch["latent"] * told[..., None]}

    def noisy(self, latents: Tensor, history: Tensor) -> Tensor:
        """Noise on the own past, so that errors do not pile up (CALM, arXiv 2509.06926): sqrt(k) eps + sqrt(1 - k) z."""
        k = HISTORY_NOISE * torch.rand(len(latents), 1, 1, device=latents.device) ** 2 * history[..., None]
        return k.sqrt() * torch.randn_like(latents) + (1 - k).sqrt() * latents

    def forward(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        batch = self.voiceless(self.blended(batch))
        hidden = self.backbone(self.positions(batch), batch["kind"])
        losses = {"plain": self.plain(batch["plain"].flatten(0, 1))}
        losses["loss"] = 0.5 * losses["plain"]
        decided, words = batch["target"] != IGNORE, batch["next"] > 0
        if decided.any():  # in a reading nothing is
            gate = self.backbone.gate_logits(hidden[decided], newest_text(hidden, batch["kind"])[decided])
            target = batch["target"][decided]
            when = F.cross_entropy(gate, target, reduction="none")
            weight = torch.where(target > 0, 1.0, PAD_WEIGHT)
            logits, token, mine = self.backbone.text_logits(hidden[words]).float(), batch["next"][words], batch["mine"][words]
            what = F.cross_entropy(logits, token, reduction="none")
            losses |= {"gate": (when * weight).sum() / weight.sum(), "word": weighted(what, mine),
                       "news": when[target > 0].mean(), "right": (logits.argmax(-1) == token)[mine].float().mean()}
            losses["loss"] = losses["loss"] + losses["gate"] + losses["word"]
        chosen = torch.rand_like(batch["flow"]) < batch["flow"]
        if chosen.any():
            losses["flow"], losses["distil"] = self.flow(hidden[chosen], batch["goal"][chosen])
            losses["loss"] = losses["loss"] + (1 - DISTIL_SHARE) * losses["flow"] + DISTIL_SHARE * losses["distil"]
        return losses

    def plain(self, tokens: Tensor) -> Tensor:
        """Next-token loss of text-only dialogues [n, P]."""
        logits = self.backbone.text_logits(self.backbone(self.backbone.embed_text(tokens))[:, :-1]).float()
        targets = tokens[:, 1:]
        real, mine = targets > 0, own_words(tokens, self.turn, self.done)[:, 1:]
        return weighted(F.cross_entropy(logits[real], targets[real], reduction="none"), mine[real])

    def flow(self, hidden: Tensor, data: Tensor) -> tuple[Tensor, Tensor]:
        """Flow matching and self-distillation losses on hidden states [N, D] and latents [N, L]."""
        velocity = self.speak_head.velocity(hidden)
        many = data.expand(DRAWS, *data.shape)
        return flow_matching_loss(velocity, many).mean(), self_distillation_loss(velocity, data).mean()


def main() -> None:
    p = parser(__doc__.splitlines()[0], steps=2000, batch=16, lr=8e-4)
    p.add_argument("--frames", type=Path, nargs="+", default=[],
                   help="folders of prepared frames; without: virtual dialogues and text alone, a warm-up")
    p.add_argument("--readings", type=Path, nargs="+", default=[], help="folders of prepared readings (python -m michiai.data --reading)")
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--text", help="weights of the text stage to start from")
    p.add_argument("--init", help="weights of an earlier duplex run to start from")
    p.add_argument("--virtual", type=float, default=0.4, help="share of steps whose framed rows have no sound")
    p.add_argument("--read", type=float, default=0.4, help="share of steps whose framed rows are readings, with --readings")
    p.add_argument("--text-rows", type=int, default=1, help="text rows per framed row")
    args = p.parse_args()
    if not (args.text or args.init):
        p.error("--text or --init is needed: weights to start from")
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    torch.manual_seed(args.seed)
    config = read_config(args.config, tokenizer)
    stage = DuplexStage(config)
    if args.text:
        load_part(stage.backbone, args.text, "backbone.", new=("gate", "user_mark", "since", "listen_proj", "latent_proj"))
    if args.init:
        load_part(stage, args.init)
    stage.backbone.language_model.get_input_embeddings().requires_grad_(False)
    rows = Rows(args.frames, tokenizer, config, readings=args.readings, virtual=args.virtual, read=args.read if args.readings else 0,
                text_rows=args.text_rows)
    print(f"{len(rows.dialogues)} spoken dialogues, {len(rows.readings)} readings")
    fit(stage, rows, args, ema=0.999)


if __name__ == "__main__":
    main()
