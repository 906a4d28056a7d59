"""MichiAIProcessor: what users give (any text, any audio) -> what the model takes.

Text becomes spoken form (nobody says "9:30"), audio becomes mono float32 at the model's rate.
`StreamingResampler` gives the same samples, bit for bit, however a signal is cut into chunks.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature, ProcessorMixin

from .spoken_michiai import spoken

try:
    import soundfile
except ImportError:  # arrays need no reader
    soundfile = None

Audio = Any  # path | (array, rate) | {"array": ..., "sampling_rate": ...}, as of Hugging Face's datasets


def check_rate(rate: Any, what: str = "sampling rate") -> int:
    """The rate as an int, refused outside of 1,000 to 768,000 and, above 48,000, where it is no multiple of 8.

    The resampler has a row of taps for each of rate_out / gcd(rate_in, rate_out) phases: for 767,999 to 16,000 Hz that would be 131 MB.
    """
    if (
        isinstance(rate, bool)
        or not isinstance(rate, (int, float, np.integer, np.floating))
        or not float(rate).is_integer()
    ):
        raise ValueError(
            f"{what} is {rate!r}; expected a whole number of samples per second, for instance 16000"
        )
    if not 1_000 <= rate <= 768_000:
        raise ValueError(
            f"{what} is {rate}; expected 1000 to 768000 samples per second: is it in kHz, or missing?"
        )
    if rate > 48_000 and rate % 8:
        raise ValueError(f"{what} is {rate}; expected up to 48000 samples per second, or a multiple of 8: convert the sound to 48000 first")
    return int(rate)


def _array(samples: Any, what: str) -> np.ndarray:
    """Numbers in whatever holds them -> an array as PyTorch takes it."""
    try:
        array = np.asarray(samples)
    except ValueError:  # rows of several lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{what} is of type {type(samples).__name__}; expected an array or tensor of numbers: a file's are "
                         "soundfile.read(path), those of raw bytes numpy.frombuffer(pcm, '<i2')")
    return np.require(array, array.dtype.newbyteorder("="), ["C", "W"])


def to_mono(samples: Any, what: str = "audio") -> Tensor:
    """Array or tensor of any usual type, [N], [N, channels] or, of more than 8 samples, [channels, N] -> float32 [N] in -1 to 1."""
    x = samples.detach().cpu() if isinstance(samples, Tensor) else torch.from_numpy(_array(samples, what))
    if x.ndim == 2:
        x = x if x.shape[1] <= 8 else x.T  # a chunk of a stream may have fewer samples than channels
        if x.shape[1] > 8:
            raise ValueError(
                f"{what} has shape {tuple(samples.shape)}; expected samples x channels with at most 8 "
                "channels: is it a batch? give one clip at a time"
            )
    elif x.ndim != 1:
        raise ValueError(f"{what} has shape {tuple(x.shape)}; expected [N], [N, channels] or [channels, N]")
    if x.dtype in (torch.int16, torch.int32):
        x = x.double() / (1 << (15 if x.dtype == torch.int16 else 31))
    elif x.dtype == torch.uint8:
        x = (x.double() - 128) / 128
    elif not x.is_floating_point():
        raise ValueError(f"{what} is of type {x.dtype}; expected int16, int32, uint8 or float")
    x = (x.mean(dim=1) if x.ndim == 2 else x).float()
    if not torch.isfinite(x).all():
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(
            f"{what} has {bad} NaN or infinite samples of {x.numel()}; expected finite numbers: "
            "was it divided by its own silence? clean it with numpy.nan_to_num"
        )
    if x.numel() and float(x.abs().max()) > 64:
        raise ValueError(
            f"{what} peaks at {float(x.abs().max()):g}; expected floats from -1 to 1: divide by 32768, "
            "or give int16"
        )
    return x


def load_audio(source: Audio) -> tuple[Tensor, int]:
    """A path, (array, rate) or {"array": ..., "sampling_rate": ...} -> (mono float32 [N], rate)."""
    if isinstance(source, dict) and source.keys() >= {"array", "sampling_rate"}:
        source = source["array"], source["sampling_rate"]
    if isinstance(source, (np.ndarray, Tensor)):
        raise ValueError(f"audio is an array of shape {tuple(source.shape)} without a rate; expected (array, sampling rate)")
    if isinstance(source, (tuple, list)):
        if len(source) != 2:
            raise ValueError(
                f"audio is a {type(source).__name__} of {len(source)}; expected (array, sampling rate)"
            )
        samples, rate = source
        what = "audio"
    else:
        samples, rate = read_file(source)
        what = f"audio of {source}"
    rate = check_rate(rate, f"sampling rate of {what}")
    mono = to_mono(samples, what)
    if not mono.numel():
        raise ValueError(
            f"{what} is empty (0 samples); expected sound: is the file cut, or the recording not started?"
        )
    return mono, rate


def read_file(path: Any) -> tuple[np.ndarray, int]:
    if soundfile is None:
        raise ValueError(
            f"audio is {path!r}, and no reader is there; `pip install soundfile`, or give (array, rate)"
        )
    try:
        return soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise ValueError(
            f"audio is {path!r}, which cannot be read ({error}); expected the path of a WAV, FLAC, Ogg or "
            "MP3 file, or (array, sampling rate)"
        ) from error


class StreamingResampler:
    """Band-limited change of the sampling rate (Kaiser windowed sinc), in chunks of any size.

    Output n stands at the time of input n * rate_in / rate_out; it is given as soon as the input is known
    for half the filter's width after it (16 periods of the lower rate, 1 ms at 16 kHz). Every sum has one
    order whatever the chunks (elementwise products, then halving), so that chunks never change a bit.
    """

    def __init__(self, rate_in: int, rate_out: int, zeros: int = 16) -> None:
        rate_in, rate_out = check_rate(rate_in, "rate_in"), check_rate(rate_out, "rate_out")
        common = math.gcd(rate_in, rate_out)
        self.up, self.down = rate_out // common, rate_in // common
        scale = max(1.0, self.down / self.up)  # input samples per period of the lower rate
        self.half = 0 if self.up == self.down else math.ceil(zeros * scale)
        offsets = torch.arange(-self.half + 1, self.half + 1, dtype=torch.float64)
        phases = torch.arange(self.up, dtype=torch.float64) / self.up
        time = (offsets - phases[:, None]) / scale  # [up, taps], in periods of the lower rate
        window = torch.special.i0(9.0 * (1 - (time / zeros).square()).clamp(min=0).sqrt()) / math.exp(9.0)
        taps = torch.sinc(0.95 * time) * window
        taps = taps / taps.sum(dim=1, keepdim=True).clamp(min=1e-9)  # a constant stays itself
        self.taps = F.pad(taps, (0, 2 ** math.ceil(math.log2(max(1, taps.shape[1]))) - taps.shape[1])).float()
        self.past = torch.zeros(max(0, self.half - 1))
        self.first = -max(0, self.half - 1)  # input number of past[0]
        self.n_in = self.n_out = 0

    def push(self, chunk: Tensor) -> Tensor:
        """Float [n] in -> float [m], the samples known now."""
        if not self.half:
            return chunk.float()
        self.n_in += chunk.numel()
        self.past = torch.cat([self.past, chunk.float()])
        n_ready = (
            self.n_in - self.half - 1
        ) * self.up // self.down + 1  # last one: floor(n down / up) + half < n_in
        return self._emit(max(self.n_out, n_ready))

    def flush(self) -> Tensor:
        """The end: as if silence followed. ceil(n_in * rate_out / rate_in) samples are given in all."""
        if not self.half:
            return torch.zeros(0)
        self.past = torch.cat([self.past, torch.zeros(self.half + self.taps.shape[1])])
        return self._emit(-(-self.n_in * self.up // self.down))

    def fork(self) -> "StreamingResampler":
        """A copy that goes its own way from here; `past` is replaced, never written to."""
        return copy.copy(self)

    def _emit(self, stop: int) -> Tensor:
        pieces = [torch.zeros(0)]
        while self.n_out < stop:
            number = torch.arange(self.n_out, min(stop, self.n_out + 8192)) * self.down
            base = number // self.up - self.half + 1 - self.first  # place of the first tap in `past`
            index = (base[:, None] + torch.arange(self.taps.shape[1])).clamp(
                max=len(self.past) - 1
            )  # taps there are 0
            product = self.past[index] * self.taps[number % self.up]
            while product.shape[1] > 1:
                left, right = product.chunk(2, dim=1)
                product = left + right
            pieces.append(product[:, 0])
            self.n_out += len(number)
        keep = self.n_out * self.down // self.up - self.half + 1 - self.first
        self.past, self.first = self.past[max(0, keep) :].clone(), self.first + max(0, keep)
        return torch.cat(pieces)


def resample(x: Tensor, rate_in: int, rate_out: int) -> Tensor:
    """Float [N] at rate_in -> float [ceil(N * rate_out / rate_in)]."""
    resampler = StreamingResampler(rate_in, rate_out)
    return torch.cat([resampler.push(x), resampler.flush()])


class MichiAIProcessor(ProcessorMixin):
    """Text and audio in any usual form -> tensors for the model.

    Args:
        tokenizer: the LLM's.
        sampling_rate: the model's.
        spoken_text: bring text to spoken form first (nano's LLM knows nothing else).
    """

    def __init__(
        self, tokenizer=None, sampling_rate: int = 16_000, spoken_text: bool = True, **kwargs: Any
    ) -> None:
        self.sampling_rate = check_rate(sampling_rate)
        self.spoken_text = spoken_text
        super().__init__(tokenizer, **kwargs)

    def __call__(
        self,
        text: str | list[str] | None = None,
        audio: Audio | list[Audio] | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Text -> input_ids, attention_mask; audio -> audio [B, N].

        Audio is a path, (array, rate) or an array with `sampling_rate`. Clips of a batch
        are padded with zeros; `audio_lengths` [B] says how long each is.
        """
        if text is None and audio is None:
            raise ValueError(
                "neither text nor audio was given; expected at least one, for instance text='hello'"
            )
        output: dict[str, Any] = {}
        if text is not None:
            texts = list(text) if isinstance(text, Iterable) and not isinstance(text, str) else [text]
            wrong = [one for one in texts if not isinstance(one, str)]
            if wrong or not texts:
                raise ValueError(f"text is {wrong[0] if wrong else text!r}; expected a str or a list of at least one, for instance 'hello'")
            texts = [" " + spoken(one) for one in texts] if self.spoken_text else texts
            kwargs.setdefault("padding", len(texts) > 1)
            kwargs.setdefault("return_token_type_ids", False)
            output |= self.tokenizer(texts, return_tensors=return_tensors, **kwargs)
        if audio is not None:
            if isinstance(audio, list) and not audio:
                raise ValueError("audio is []; expected a path, (array, rate) or a list of at least one; leave it out for text alone")
            clips = [self.clip(one, sampling_rate) for one in (audio if isinstance(audio, list) else [audio])]
            output["audio_lengths"] = torch.tensor([len(clip) for clip in clips])
            output["audio"] = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
            if return_tensors == "np":
                output |= {name: output[name].numpy() for name in ("audio", "audio_lengths")}
        return BatchFeature(output, tensor_type=None)

    def clip(self, audio: Audio, sampling_rate: int | None = None) -> Tensor:
        """One clip -> float32 [N] at the model's rate."""
        if isinstance(audio, (np.ndarray, Tensor)) and sampling_rate is not None:
            audio = (audio, sampling_rate)
        samples, rate = load_audio(audio)
        return resample(samples, rate, self.sampling_rate)
