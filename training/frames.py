"""Frames, virtual frames and text -> batches for the duplex stage.

A row is a sequence of positions: prompt text, voice prompt, then frames, each after the word that became known before it, with
injected text between them. Four kinds:
- spoken: a rendered dialogue, its frames prepared by `michiai.training.prepare`;
- reading: the model alone reads aloud (`data/wide.py`). It is dictated, so that its sound alone is learned;
- virtual: a fresh script laid out on a timeline without any sound. Frames of text alone cost no synthesis, so that
  what can be said in frames is as varied as what can be said in text;
- text: the text-only form, so that the language does not decay.

n rows, P positions, D listen width, L latent width.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from michiai.backbone_michiai import DONE, TURN, WORD
from michiai.configuration_michiai import MichiAIConfig
from michiai.data.grammar import Script, make_script
from michiai.data.mishear import misheard
from michiai.data.render import FIRST, NEXT, RESPONSE, STOP, silence
from michiai.data.streams import place_words
from michiai.lanes_michiai import ASIDE, SOUND, TEXT, text_lane
from michiai.training.prepare import own_stream
from michiai.training.text import MOST_TOKENS, draw_text

IGNORE = -1  # no target at this position


def word_seconds(word: str, pace: float) -> float:
    """How long a word takes to say, roughly."""
    return pace * (0.12 + 0.055 * len(word))


def virtual_dialogue(script: Script, rng: np.random.Generator) -> dict:
    """A script on a timeline, as rendering would describe it: word times, turns, injections; `seconds` in all."""
    now = silence(rng, FIRST)
    words: dict[str, list] = {"user": [], "model": []}
    turns, injections = [], []
    texts = dict(script.injections)
    for i, turn in enumerate(script.turns):
        if i in texts:
            now += rng.uniform(0.3, 1.0)
            injections.append((now, texts[i]))
            now += rng.uniform(0.2, 1.0)
        start = now
        before = turns[-1] if turns else None
        if turn.who == "model" and before and turn.timing == "after":
            start = before["end"] + silence(rng, RESPONSE)
        elif before and turn.timing in ("interrupt", "backchannel"):
            start = rng.uniform(before["start"] + 0.4, max(before["start"] + 0.5, before["end"] - 0.6))
        elif before and turn.timing == "overlap":
            start = before["end"] - rng.uniform(0.1, 0.4)
        elif before:
            start = before["end"] + silence(rng, NEXT)
        if before and turn.timing == "interrupt":
            before["end"] = min(before["end"], start + rng.uniform(*STOP))
            words["model"] = [w for w in words["model"] if w[1] < before["end"]]
        at, pace = start, rng.uniform(0.75, 1.25)
        for word in turn.text.split():
            if word == "<pause>":
                at += rng.uniform(0.6, 1.8)
                continue
            end = at + word_seconds(word, pace)
            words[turn.who].append((word, at, end))
            at = end
        turns.append({"who": turn.who, "start": start, "end": at})
        if turn.timing == "backchannel":
            turns[-2], turns[-1] = turns[-1], turns[-2]  # the turn it lies in goes on: what follows counts from its end
        now = max(t["end"] for t in turns)
    return {"instructions": script.instructions, "context": script.context, "injections": injections, "turns": turns,
            "user_words": words["user"], "model_words": words["model"], "seconds": now + rng.uniform(0.6, 1.6)}


def similar(rows: list, n: int, rng: np.random.Generator, length: Callable) -> list:
    """`n` neighbours of `rows` in order of length: little padding."""
    rows = sorted(rows, key=length)
    first = int(rng.integers(0, len(rows) - n + 1))
    return rows[first : first + n]


class Rows:
    """Assembles rows and batches.

    Args:
        frames, readings: folders of prepared frames of dialogues and of readings; without any, virtual and text rows only.
        virtual, read: shares of all steps whose framed rows are virtual, and readings; the rest are dialogues.
        text_rows: rows of text per framed row.
    """

    def __init__(self, frames: Sequence[Path], tokenizer: PreTrainedTokenizerBase, config: MichiAIConfig, *,
                 readings: Sequence[Path] = (), virtual: float = 0.4, read: float = 0.0, text_rows: int = 1) -> None:
        self.tokenizer, self.config = tokenizer, config
        self.virtual, self.read, self.text_rows = virtual, read, text_rows
        self.shards: list[dict[str, Tensor]] = []
        self.dialogues, self.readings = self.load(frames), self.load(readings)

    def load(self, folders: Sequence[Path]) -> list[tuple[int, int, int, dict]]:
        """(length, shard, index, description) of all prepared frames of some folders."""
        found = []
        for path in (path for folder in folders for path in sorted(folder.glob("*.safetensors"))):
            infos = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
            self.shards.append(load_file(str(path)))
            found += [(self.length(len(self.shards) - 1, i, info), len(self.shards) - 1, i, info) for i, info in enumerate(infos)]
        return found

    def length(self, shard: int, i: int, info: dict) -> int:
        """Positions of a spoken dialogue, but for its voice prompt and its words."""
        a, b = self.shards[shard]["offsets"][i : i + 2].tolist()
        return b - a + len(self.prompt(info)) + sum(len(self.tokens(text)) for _, text in info["injections"])

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def prompt(self, info: dict) -> list[int]:
        parts = [f"<{name}> {info[name]}" for name in ("instructions", "context") if info.get(name)]
        return self.tokens(" ".join([*parts, "<user>"]))

    def spoken(self, shard: int, i: int, info: dict, rng: np.random.Generator) -> dict:
        """A rendered dialogue, as `row` takes it. Now and then the listen head's embeddings are absent."""
        t = self.shards[shard]
        a, b = t["offsets"][i : i + 2].tolist()
        c, d = t["voice_offsets"][i : i + 2].tolist()
        n_voice = min(d - c, int(rng.integers(20, 45)))
        heard = t["heard"][a:b].float() if "heard" in t and rng.random() < 0.95 else None
        return {"info": info, "voice": t["voice"][c : c + n_voice].float(), "heard": heard, "latents": t["latents"][a:b].float(),
                "user": t["user_text"][a:b].long(), "own": t["own_text"][a:b].long()}

    def virtual_row(self, rng: np.random.Generator) -> dict:
        """A fresh script on a timeline, as `row` takes it: no sound, no voice."""
        info = virtual_dialogue(misheard(rng, make_script(rng, "train")), rng)
        n = int(info["seconds"] * self.config.frame_rate) + 1
        user = place_words(info["user_words"], self.tokenizer, n, at="end", offset_frames=self.config.listen_config.delay,
                           frame_rate=self.config.frame_rate)
        own = own_stream(info, self.tokenizer, n, self.config)
        return {"info": info, "voice": torch.zeros(0, self.config.latent_dim), "heard": None, "latents": None,
                "user": torch.tensor(user), "own": torch.tensor(own)}

    def row(self, info: dict, voice: Tensor, lane: Tensor, *, heard: Tensor | None, user: Tensor, own: Tensor,
            latents: Tensor | None) -> dict[str, Tensor]:
        """Positions of one dialogue.

        Args:
            voice: [T', L] of the voice prompt.
            lane: tokens [T, 2] that enter the text lane before each frame (`text_lane`).
            heard, latents: [T, D], [T, L]; None: that stream is absent.
            user, own: tokens [T].
        """
        n, L = len(own), self.config.latent_dim
        cuts = [(min(n, int(time * self.config.frame_rate)), self.tokens(f"<context> {text} <user>")) for time, text in info["injections"]]
        text = self.prompt(info)
        kind, frame_at, first = [TEXT] * len(text) + [SOUND] * len(voice), [], len(text)
        text += [0] * len(voice)
        for t, new in enumerate(lane.tolist()):
            words = [token for at, ids in cuts if at == t for token in ids] + [token for token in new if token]
            kind += [ASIDE if token < 0 else TEXT for token in words] + [SOUND]
            frame_at.append(len(kind) - 1)
            text += [*words, 0]
        P, at = len(kind), torch.tensor(frame_at)
        row = {"kind": torch.tensor(kind), "text": torch.tensor(text), "user": torch.zeros(P, dtype=torch.long)}
        row["own"], row["target"] = torch.zeros(P, dtype=torch.long), torch.full((P,), IGNORE)
        row["frame"] = torch.zeros(P, dtype=torch.bool)
        row["heard"], row["latent"] = torch.zeros(P, self.config.listen_config.width), torch.zeros(P, L)
        row["goal"], row["flow"] = torch.zeros(P, L), torch.zeros(P)
        row["next"], row["mine"] = self.next_tokens(row["text"])
        turn, done = (own == self.config.special_tokens[name] for name in ("<turn>", "<done>"))
        row["user"][at], row["frame"][at] = user, True
        if info.get("behaviour") == "reading":  # dictated: what is said next, and when, is nothing that one could know
            row["next"].zero_()
        else:
            row["target"][at] = torch.where(turn, TURN, torch.where(done, DONE, torch.where(own > 0, WORD, 0)))
        row["own"][at[1:]] = own[:-1]
        if heard is not None:
            row["heard"][at] = heard
        if latents is not None:
            row["goal"][at], row["flow"][at] = latents, self.flow_weight(own)
            row["latent"][at[1:]] = latents[:-1]
        row["latent"][first : first + len(voice)] = voice
        return row

    def next_tokens(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """What follows each text position in its lane, and whether it is of one's own answer: [P], [P].

        The user's words in the midst of an answer (negative in `text`) are left out: the answer goes on after them.
        """
        at = (text > 0).nonzero()[:, 0]
        tokens = text[at].tolist()
        coming, mine, following, own = torch.zeros_like(text), torch.zeros(len(text), dtype=torch.bool), 0, False
        for i in range(len(tokens) - 1, -1, -1):
            coming[at[i]], mine[at[i]] = following, own
            following = tokens[i]
            own = {self.config.special_tokens["<done>"]: True, self.config.special_tokens["<turn>"]: False}.get(following, own)
        return coming, mine

    def flow_weight(self, own: Tensor) -> Tensor:
        """1 from `<turn>` until two frames after `<done>`, 0.1 where the model is silent: [T]."""
        turn, done = (own == self.config.special_tokens[name] for name in ("<turn>", "<done>"))
        closed = torch.cat([torch.zeros(3, dtype=torch.long), done.long()])[: len(own)].cumsum(0)
        return torch.where(turn.long().cumsum(0) > closed, 1.0, 0.1)

    def text_row(self, rng: np.random.Generator) -> list[int]:
        return self.tokens(draw_text(rng))[:MOST_TOKENS]

    def __call__(self, step: int, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        """`n` framed rows of similar length and one kind, under their own names; text rows as `plain` [n, text_rows, P]."""
        kind = rng.random()
        if self.dialogues and kind >= self.virtual:
            source = self.readings if kind < self.virtual + self.read else self.dialogues
            picked = similar([source[k] for k in rng.integers(0, len(source), 4 * n)], n, rng, lambda entry: entry[0])
            given = [self.spoken(*entry, rng) for _, *entry in picked]
        else:
            given = similar([self.virtual_row(rng) for _ in range(2 * n)], n, rng, lambda row: len(row["own"]))
        user, own = (nn.utils.rnn.pad_sequence([row[name] for row in given], batch_first=True) for name in ("user", "own"))
        lanes = text_lane(user, nn.functional.pad(own[:, :-1], (1, 0)), self.config.special_tokens)
        rows = [self.row(lane=lane[: len(row["own"])], **row) for row, lane in zip(given, lanes, strict=True)]
        limit = self.config.max_prompt + self.config.window + self.config.text_window
        batch = {name: nn.utils.rnn.pad_sequence([row[name][:limit] for row in rows], batch_first=True,
                                                 padding_value=IGNORE if name == "target" else 0) for name in rows[0]}
        size = n * self.text_rows
        plain = similar([self.text_row(rng) for _ in range(4 * size)], size, rng, len)
        rows = [torch.tensor(p) for p in plain]
        batch["plain"] = nn.utils.rnn.pad_sequence(rows, batch_first=True).view(n, self.text_rows, -1)
        return batch
