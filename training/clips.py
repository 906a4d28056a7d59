"""Short clips of one voice, for codec and vocoder: from dialogue shards and from folders of recordings."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from michiai.training.shards import Shard

QUIET = 0.004  # RMS under which a clip counts as silence


@lru_cache(maxsize=4000)
def read_recording(path: Path, sampling_rate: int) -> np.ndarray:
    """A recording as int16 [N] mono at `sampling_rate`."""
    import soundfile
    import soxr

    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = soxr.resample(audio.mean(1), rate, sampling_rate)
    return (audio.clip(-1, 1) * 32767).astype(np.int16)


class Clips:
    """`clips(step, rng, n)` -> {"audio": int16 [n, n_samples]}: mostly speech, a little silence.

    Args:
        folders: of shards written by `python -m michiai.data`.
        sampling_rate: of the clips, whatever the shards' and the recordings' own.
        speech: a folder with `manifest.jsonl` (path, lang) of recordings, or None.
        share: part of the clips that comes from `speech`. model_channel: part of the others.
    """

    def __init__(
        self,
        folders: list[Path],
        n_samples: int,
        sampling_rate: int,
        speech: Path | None = None,
        share: float = 0.2,
        model_channel: float = 0.9,
    ) -> None:
        self.n_samples, self.sampling_rate, self.model_channel = n_samples, sampling_rate, model_channel
        paths = sorted(path for folder in folders for path in Path(folder).glob("*.safetensors"))
        self.sources = [Shard(path, sampling_rate) for path in paths]
        if not self.sources:
            raise ValueError(
                f"no shards in {folders}; expected NNNNN.safetensors of `python -m michiai.data`"
            )
        self.recordings, self.share = [], share
        if speech is not None:
            lines = map(json.loads, (speech / "manifest.jsonl").read_text().splitlines())
            self.recordings = [speech / line["path"] for line in lines if line["lang"] == "en"]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One random stretch, int16 [n_samples], zeros after the end of its source."""
        if self.recordings and rng.random() < self.share:
            audio = read_recording(self.recordings[rng.integers(len(self.recordings))], self.sampling_rate)
            start = rng.integers(max(1, len(audio) - self.n_samples))
            audio = audio[start : start + self.n_samples]
        else:
            shard = self.sources[rng.integers(len(self.sources))]
            which = rng.integers(len(shard.offsets) - 1)
            length = shard.offsets[which + 1] - shard.offsets[which]
            start = rng.integers(max(1, length - self.n_samples))
            channel = int(rng.random() < self.model_channel)
            audio = shard.read(which, start, start + self.n_samples, channel)
        return np.pad(audio, (0, self.n_samples - len(audio)))

    def __call__(self, step: int, rng: np.random.Generator, n: int) -> dict[str, Tensor]:
        clips = []
        while len(clips) < n:
            clip = self.draw(rng)
            if np.square(clip / 32768.0).mean() > QUIET**2 or rng.random() < 0.04:
                clips.append(clip)
        return {"audio": torch.from_numpy(np.stack(clips))}


def random_gain(audio: Tensor, low: float = -10.0, high: float = 4.0) -> Tensor:
    """int16 [B, N] -> float [B, N], each row with its own gain (dB), never beyond full scale."""
    audio = audio.float() / 32768
    gain = 10 ** (torch.empty(len(audio), 1, device=audio.device).uniform_(low, high) / 20)
    return audio * torch.minimum(gain, 0.99 / audio.abs().amax(1, keepdim=True).clamp(min=1e-4))
