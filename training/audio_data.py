"""Shards of dialogues -> batches for the listen head, and augmentation so that unseen voices are heard.

A batch is a function of the shards found at the start and of the generator it is given: the same seed and
step give the same batch. Shards rendered later join when a run is resumed.

B batch, N samples, K mel bins, M mel frames, T frames.
"""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from michiai.codec_michiai import mel_scale
from michiai.data.augment import ROOM_BELOW, ROOM_DECAY
from michiai.data.streams import place_words
from michiai.training.shards import WRITTEN_AT, Shard

Words = list[tuple[str, float, float]]  # word, start and end in seconds
SLOWEST, FASTEST = 0.85, 1.2  # of speech, after the change of rate
RAMP = 3  # frames around the end of a turn in which the turn gate may be unsure
USER, MODEL, BOTH = 0, 1, 2  # channels; both: everyone into one microphone


@dataclass(frozen=True)
class Entry:
    """One dialogue of a shard."""

    shard: int
    number: int  # within the shard
    length: int  # samples, at the rate that is wanted
    info: dict  # its line of the .jsonl file


class Shards:
    """All dialogues of folders written by `python -m michiai.data`.

    Args:
        folders: each holds NNNNN.safetensors and NNNNN.jsonl.
        sampling_rate: of the samples that are wanted, whatever was written.
        limit: use the first `limit` shards of each only (0: all there are now).
    """

    def __init__(self, *folders: str | Path, sampling_rate: int = WRITTEN_AT, limit: int = 0) -> None:
        self.sampling_rate = sampling_rate
        self.files: list[Path] = []
        for folder in folders:
            found = [
                path
                for path in sorted(Path(folder).glob("*.safetensors"))
                if path.with_suffix(".jsonl").exists()
            ]
            if not found:
                raise ValueError(
                    f"{folder} holds no shards; expected NNNNN.safetensors with NNNNN.jsonl: "
                    "make them with `python -m michiai.data`"
                )
            self.files += found[:limit] if limit else found
        self.shards = [Shard(path, sampling_rate) for path in self.files]
        self.entries: list[Entry] = []
        for which, (path, shard) in enumerate(zip(self.files, self.shards, strict=True)):
            lines = path.with_suffix(".jsonl").read_text().splitlines()
            for number, ((start, stop), line) in enumerate(zip(pairwise(shard.offsets), lines, strict=True)):
                self.entries.append(Entry(which, number, stop - start, json.loads(line)))

    def samples(self, entry: Entry, channel: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """int16 [length] of one channel or both in one, from sample `start` of a dialogue on, then zeros."""
        length = entry.length - start if length is None else length
        audio = self.shards[entry.shard].read(entry.number, start, start + length, None if channel == BOTH else channel)
        if channel == BOTH:
            audio = (audio.astype(np.int32).sum(0)).clip(-32768, 32767).astype(np.int16)
        return np.pad(audio, (0, length - len(audio)))

    def hours(self) -> float:
        return sum(entry.length for entry in self.entries) / self.sampling_rate / 3600


def turn_target(spans: list[tuple[float, float]], n_frames: int, frame_s: float, known: bool) -> np.ndarray:
    """[2, T]: has the user finished (0 to 1), and how much the frame counts.

    Args:
        spans: start and end of the user's complete turns, in seconds; a pause within a turn is no end.
        known: nothing came before the clip. If not, frames before the first turn do not count.
    """
    target, weight = np.zeros((2, n_frames), dtype=np.float32)
    times = (np.arange(n_frames) + 1) * frame_s  # a frame is judged at its end
    weight[:] = 1.0 if known else (times > (spans[0][0] if spans else math.inf))
    for number, (start, end) in enumerate(spans):
        following = spans[number + 1][0] if number + 1 < len(spans) else math.inf
        done = (times > end) & (times <= following)
        target[done] = np.minimum(1.0, (times[done] - end) / (RAMP * frame_s))
        weight[(times > start) & (times <= start + RAMP * frame_s)] *= 0.3
    return np.stack([target, weight])


def letter_target(words: Words, n_steps: int, step_s: float) -> np.ndarray:
    """int64 [n_steps]: which letter of its word is being said (1 to 26, 27 any other), 0 in silence.

    A word's letters share its time evenly: rough, but dense, where a word's token is one frame in five.
    """
    target = np.zeros(n_steps, dtype=np.int64)
    for word, start, end in words:
        if word.startswith("<") or end <= start:
            continue
        steps = np.arange(max(0, round(start / step_s)), min(n_steps, round(end / step_s)))
        place = ((steps + 0.5) * step_s - start) / (end - start) * len(word)
        codes = np.array([ord(letter) - 96 for letter in word])
        target[steps] = np.where((codes > 0) & (codes < 27), codes, 27)[
            place.clip(0, len(word) - 1).astype(int)
        ]
    return target


class ListenBatches:
    """Random clips of dialogues: `batches(step, rng, n)` -> dict of tensors with n rows.

    Some clips are of the model's channel, some of both in one: speech is speech, and there is more of
    it; only the turns are not judged there.

    Args:
        shares: of clips of the user's channel, the model's and both.
        shuffled: share of clips whose words stand in random order: held-out questions are not to be guessed.
        n_frames: length of a clip. delay: frames between the end of a word and its token.
        frame_size: samples per frame at `sampling_rate`.
    """

    def __init__(
        self,
        shards: Shards,
        tokenizer: PreTrainedTokenizerBase,
        n_frames: int,
        delay: int,
        frame_size: int = 1280,
        sampling_rate: int = 16_000,
        shares: tuple[float, float, float] = (0.45, 0.1, 0.45),
        shuffled: float = 0.45,
    ) -> None:
        self.shards, self.tokenizer = shards, tokenizer
        self.n_frames, self.delay = n_frames, delay
        self.shares, self.shuffled = shares, shuffled
        self.frame_size, self.sampling_rate = frame_size, sampling_rate
        self.n_samples = math.ceil(n_frames * FASTEST) * frame_size  # of source audio, enough for the fastest

    def __call__(self, step: int, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        rows = [self.clip(rng) for _ in range(n)]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}

    def clip(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """audio int16 [N], rate [], tokens int64 [T], letters int64 [2 T], turn [2, T]."""
        entry = self.shards.entries[rng.integers(len(self.shards.entries))]
        spoken = entry.info["user_words"], entry.info["model_words"]
        channel = int(rng.choice(3, p=self.shares)) if all(spoken) else MODEL if spoken[MODEL] else USER
        rate = math.exp(rng.uniform(math.log(SLOWEST), math.log(FASTEST))) if rng.random() < 0.7 else 1.0
        words: Words = [] if channel == MODEL else spoken[USER]
        if channel != USER:
            words = sorted(words + spoken[MODEL], key=lambda word: word[2])
        if words and rng.random() < self.shuffled:
            return self.shuffle(rng, entry, channel, words, rate)
        length = int(self.n_frames * self.frame_size * rate)
        spare = entry.length - length
        if spare <= 0 or rng.random() < 0.15:
            start = 0
        else:  # the fullest of four: silence teaches little
            starts = [int(start) for start in rng.integers(spare + 1, size=4)]
            start = self.before_word(max(starts, key=lambda first: self.n_words(words, first, length)), words)
        return {
            "audio": self.shards.samples(entry, channel, start, self.n_samples),
            "rate": np.float32(rate),
            **self.targets(entry.info, words, channel, start / self.sampling_rate, rate),
        }

    def shuffle(
        self, rng: np.random.Generator, entry: Entry, channel: int, words: Words, rate: float
    ) -> dict[str, np.ndarray]:
        """A dialogue's words, in runs of one to three, in any order: each must be heard, not guessed."""
        audio = self.shards.samples(entry, channel)
        out = np.zeros(self.n_samples, np.int16)
        at, placed = int(rng.integers(1, 8000)), []
        while at < self.n_samples - self.sampling_rate // 10:
            first = int(rng.integers(len(words)))
            run = words[first : first + int(rng.integers(1, 4))]
            begin = max(0, int((min(start for _, start, _ in run) - 0.015) * self.sampling_rate))
            piece = audio[begin : int((run[-1][2] + 0.015) * self.sampling_rate)][: self.n_samples - at]
            out[at : at + len(piece)] = piece
            shift = (at - begin) / self.sampling_rate
            placed += [(word, start + shift, end + shift) for word, start, end in run]
            at += len(piece) + int(rng.exponential(0.05) * self.sampling_rate)
        targets = self.targets({"turns": []}, placed, MODEL, 0.0, rate)
        return {"audio": out, "rate": np.float32(rate), **targets}

    def n_words(self, words: Words, start: int, length: int) -> int:
        first, last = start / self.sampling_rate, (start + length) / self.sampling_rate
        return sum(first <= begin and end <= last for _, begin, end in words)

    def before_word(self, start: int, words: Words) -> int:
        """Move the first sample of a clip out of a word: half a word cannot be heard."""
        for _, begin, end in words:
            if begin * self.sampling_rate < start < end * self.sampling_rate:
                return max(0, int((begin - 0.02) * self.sampling_rate))
        return start

    def targets(
        self, info: dict, words: Words, channel: int, start: float, rate: float
    ) -> dict[str, np.ndarray]:
        """tokens [T], letters [2 T], turn [2, T] from second `start` on, spoken `rate` times faster."""
        frame_s = self.frame_size / self.sampling_rate
        length = self.n_frames * frame_s
        moved = [(word, (begin - start) / rate, (end - start) / rate) for word, begin, end in words]
        moved = [(word, begin, end) for word, begin, end in moved if begin > -0.03 and end < length]
        tokens = place_words(moved, self.tokenizer, self.n_frames, at="end", offset_frames=self.delay, frame_rate=1 / frame_s)
        turns = [turn for turn in info["turns"] if turn["who"] == "user"]
        spans = [((turn["start"] - start) / rate, (turn["end"] - start) / rate) for turn in turns]
        spans = [span for span in spans if span[0] > -0.03 and span[0] < length]
        turn = turn_target(spans, self.n_frames, frame_s, known=start == 0)
        if channel != USER:
            turn[1] = 0.0
        letters = letter_target(moved, 2 * self.n_frames, frame_s / 2)
        return {"tokens": np.asarray(tokens, dtype=np.int64), "letters": letters, "turn": turn}


def uniform(n: int, low: float, high: float, device: torch.device, chance: float = 1.0) -> Tensor:
    """[n] uniform numbers; 0 instead of some, where only a `chance` of the rows is to be changed."""
    return (torch.rand(n, device=device) * (high - low) + low) * (torch.rand(n, device=device) < chance)


def noise_bank(seconds: int, sampling_rate: int, seed: int = 0) -> Tensor:
    """[4, N] of power 1: white, pink, brown and hum with a little hiss."""
    rng = np.random.default_rng(seed)
    n_samples = seconds * sampling_rate
    frequency = np.maximum(np.fft.rfftfreq(n_samples, 1 / sampling_rate), 20.0)
    rows = [
        np.fft.irfft(np.fft.rfft(rng.standard_normal(n_samples)) / frequency**slope) for slope in (0, 0.5, 1)
    ]
    time = np.arange(n_samples) / sampling_rate
    rows.append(
        sum(np.sin(2 * np.pi * 50 * k * time + k) / k for k in (1, 2, 3, 5)) + 0.05 * rows[0] / rows[0].std()
    )
    return torch.from_numpy(np.stack([row / row.std() for row in rows])).float()


def reverberate(audio: Tensor, sampling_rate: int) -> Tensor:
    """Each row in a small room of its own, as `michiai.data.augment.room`: [B, N] -> [B, N]."""
    n_rows, n_samples = audio.shape
    decay = torch.empty(n_rows, 1, device=audio.device).uniform_(*ROOM_DECAY)
    time = torch.arange(int(ROOM_DECAY[1] * sampling_rate), device=audio.device) / sampling_rate
    tail = torch.randn(n_rows, len(time), device=audio.device) * 10 ** (-3 * time / decay) * (time > 0.002)
    tail = tail * (10 ** (-torch.empty_like(decay).uniform_(*ROOM_BELOW) / 20) / tail.norm(dim=1, keepdim=True))
    size = n_samples + len(time)
    return audio + torch.fft.irfft(torch.fft.rfft(audio, size) * torch.fft.rfft(tail, size), size)[:, :n_samples]


def augment_audio(audio: Tensor, bank: Tensor, sampling_rate: int) -> Tensor:
    """Rooms, other voices far away, noise, then gain: [B, N] -> [B, N]."""
    n_rows, n_samples = audio.shape
    inside = torch.rand(n_rows) < 0.25
    if inside.any():
        audio = audio.clone()
        audio[inside] = reverberate(audio[inside], sampling_rate)
    device = audio.device
    level = audio.square().mean(1).clamp(min=1e-8).sqrt()
    far = torch.where(
        torch.rand(n_rows, device=device) < 0.1, 10 ** (uniform(n_rows, -34, -20, device) / 20), 0.0
    )
    others = audio.roll(1, 0)
    audio = audio + others * (far * level / others.square().mean(1).clamp(min=1e-8).sqrt())[:, None]
    starts = torch.randint(bank.shape[1] - n_samples, (n_rows,)).tolist()
    kinds = torch.randint(len(bank), (n_rows,)).tolist()
    noise = torch.stack(
        [bank[kind, start : start + n_samples] for kind, start in zip(kinds, starts, strict=True)]
    )
    loudness = torch.where(
        torch.rand(n_rows, device=device) < 0.5, 10 ** (uniform(n_rows, -40, -8, device) / 20), 0.0
    )
    audio = audio + noise * (loudness * level)[:, None]
    return (audio * 10 ** (uniform(n_rows, -14, 6, device, chance=0.6) / 20)[:, None]).clamp(-1, 1)


def warp_mel(mel: Tensor, rate: Tensor, n_mel: int, stretch: Tensor, nyquist: float) -> Tensor:
    """Speak `rate` times faster through a vocal tract whose resonances are `stretch` times higher.

    Args:
        mel: [B, K, M] of LogMel, up to `nyquist` Hz. rate, stretch: [B]. n_mel: mel frames wanted.
    Returns:
        [B, K, n_mel], interpolated (vocal tract length perturbation, Jaitly & Hinton 2013).
    """
    _, bins, length = mel.shape
    device = mel.device
    top = mel_scale(torch.tensor(nyquist, device=device))
    centres = top * torch.arange(1, bins + 1, device=device) / (bins + 1)
    hertz = torch.where(
        centres < 15, centres * 200 / 3, 1000 * 6.4 ** ((centres - 15) / 27)
    )  # mel_scale undone
    source = mel_scale(hertz / stretch[:, None]) / top * (bins + 1) - 1  # [B, K], numbers of bins
    rows = (source + 0.5) / bins
    steps = (torch.arange(n_mel, device=device) + 0.5) * rate[:, None] / length  # [B, M] from 0 to 1
    grid = torch.stack(
        [
            steps[:, None, :].expand(-1, bins, -1),
            rows[:, :, None].expand(-1, -1, n_mel),
        ],
        dim=-1,
    )
    return F.grid_sample(mel[:, None], grid * 2 - 1, padding_mode="border", align_corners=False)[:, 0]


def augment_mel(mel: Tensor) -> Tensor:
    """Microphone colour, then masks over time and frequency (SpecAugment, arXiv 1904.08779), [B, K, M]."""
    n_rows, bins, length = mel.shape
    device = mel.device
    waves = torch.arange(1, 6, device=device)
    position = torch.arange(bins, device=device) / bins
    curves = torch.cos(torch.pi * waves[:, None] * position)  # [5, K]
    mel = mel + (torch.randn(n_rows, 5, device=device) * 0.12 @ curves)[:, :, None]
    mean = mel.mean(dim=(1, 2), keepdim=True)
    for size, limit, axis in ((length, 10, 2), (length, 10, 2), (bins, 10, 1)):
        first = torch.rand(n_rows, 1, device=device) * size
        width = torch.rand(n_rows, 1, device=device) * limit
        place = torch.arange(size, device=device)
        hidden = (place >= first) & (place < first + width)  # [B, size]
        mel = torch.where(hidden.unsqueeze(3 - axis), mean, mel)
    return mel
