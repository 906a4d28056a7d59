"""Shards of `python -m michiai.data` as a stage reads them: at its model's sampling rate, whatever their own.

Their manifest.json says at which rate they were written. Times in seconds hold at any rate.
"""

import json
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from michiai.processing_michiai import StreamingResampler, resample

WRITTEN_AT = 16_000  # samples per second, where no manifest tells


def written_rate(folder: Path) -> int:
    """Samples per second of the shards in `folder`."""
    manifest = folder / "manifest.json"
    return json.loads(manifest.read_text()).get("sampling_rate", WRITTEN_AT) if manifest.exists() else WRITTEN_AT


class Shard:
    """The sound of one shard, as if it had been written at `sampling_rate`.

    `offsets` and `reference_offsets` say where each dialogue and each reference begins, in samples at that rate; the last, where all ends.
    """

    def __init__(self, path: Path, sampling_rate: int) -> None:
        self.file = safe_open(path, "pt")  # memory mapped
        self.rates = written_rate(path.parent), sampling_rate
        names = self.file.keys()
        self.written = {name: self.file.get_tensor(at).tolist() for name, at in (("audio", "offsets"), ("reference", "reference_offsets"))
                        if at in names}
        self.offsets, self.reference_offsets = (self.scaled(self.written.get(name, [0])) for name in ("audio", "reference"))

    def scaled(self, offsets: list[int]) -> list[int]:
        """Offsets as written -> at the rate that is wanted: a clip of n samples has ceil(n * wanted / written)."""
        rate_in, rate_out = self.rates
        return list(accumulate((-(-(b - a) * rate_out // rate_in) for a, b in pairwise(offsets)), initial=offsets[0]))

    def read(self, which: int, start: int = 0, stop: int | None = None, channel: int | None = None, name: str = "audio") -> np.ndarray:
        """Samples `start` to `stop`, or to its end, of a dialogue: int16 [2, n], of one `channel` or of a `reference` [n]."""
        first, last = self.written[name][which : which + 2]
        rate_in, rate_out = self.rates
        length = -(-(last - first) * rate_out // rate_in)
        stop = length if stop is None else max(start, min(stop, length))
        sound = self.file.get_slice(name)

        def written(a: int, b: int) -> torch.Tensor:
            place = slice(first + a, first + b)
            return sound[place] if name == "reference" else sound[:, place] if channel is None else sound[channel, place]

        if rate_in == rate_out or start == stop:
            return written(start, stop).numpy()
        around = StreamingResampler(rate_in, rate_out)
        up, down, half = around.up, around.down, around.half  # `up` samples out take the time of `down` in
        before = max(0, start // up - -(-half // down))  # of these stretches; from their end on is all that `start` needs
        known = written(before * down, min(last - first, -(-stop * down // up) + half + 1)).float()
        rows = [resample(row, rate_in, rate_out)[start - before * up : stop - before * up] for row in known.view(-1, known.shape[-1])]
        return torch.stack(rows).view(*known.shape[:-1], -1).round().clamp(-32768, 32767).to(torch.int16).numpy()
