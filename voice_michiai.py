"""Voice: a few seconds of somebody, as latents that stand before a conversation."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .processing_michiai import load_audio, resample

logger = logging.getLogger(__name__)

MIN_SECONDS, MAX_SECONDS = 1.0, 30.0
PROMPT_FRAMES = 40  # as long as voice prompts were in training
LEVEL = 10 ** (-23 / 20)  # rms of speech in training, of full scale
SILENT = 1e-3


@dataclass(frozen=True, eq=False)
class Voice:
    """A reusable voice.

    Args:
        latents: [T, L], normalised latents of reference speech.
    """

    latents: Tensor

    @staticmethod
    @torch.inference_mode()
    def from_audio(model: Any, reference: Any) -> "Voice":
        """Encode the liveliest 3.2 s of 1 to 30 s of reference audio, a path or (array, rate)."""
        config = model.config
        samples, rate = load_audio(reference)
        audio = resample(samples, rate, config.sampling_rate)
        seconds = len(audio) / config.sampling_rate
        if seconds < MIN_SECONDS:
            raise ValueError(f"the reference is {seconds:.2f} s long; expected {MIN_SECONDS:g} to {MAX_SECONDS:g} s of one person speaking")
        if seconds > MAX_SECONDS:
            logger.warning("the reference is %.1f s long; only its first %g s are used", seconds, MAX_SECONDS)
            audio = audio[: int(MAX_SECONDS * config.sampling_rate)]
        if audio.square().mean().sqrt() < SILENT:
            raise ValueError(f"the reference is silent (rms {float(audio.square().mean().sqrt()):.1e}); expected audible speech: "
                             "check the microphone or the file")
        size = config.frame_size
        energy = audio[: len(audio) // size * size].view(-1, size).square().mean(-1)
        count = min(PROMPT_FRAMES, len(energy))
        start = int(energy.sqrt().unfold(0, count, 1).mean(-1).argmax())
        loud = energy[start : start + count]
        speech = loud[loud > 0.05 * loud.max()].mean().sqrt()
        clip = audio[start * size : (start + count) * size] * (LEVEL / speech)
        latents = model.codec(clip.clamp(-1, 1)[None].to(model.default_voice.device))
        with torch.inference_mode(False):
            return Voice(latents[0].float().cpu().clone())

    @staticmethod
    def of(model: Any, source: Any) -> "Voice":
        """A voice as it is, from a file written by `save`, or from reference audio, a path or (array, rate)."""
        if hasattr(source, "latents"):
            return source
        if isinstance(source, str | Path) and Path(source).suffix == ".safetensors":
            return Voice.load(source)
        return Voice.from_audio(model, source)

    def check(self, config: Any) -> "Voice":
        """Itself, if it fits a model."""
        if not isinstance(self.latents, Tensor):
            raise ValueError(f"the voice's latents are a {type(self.latents).__name__}; expected a tensor: make it with model.voice(...)")
        if self.latents.ndim != 2 or self.latents.shape[1] != config.latent_dim:
            raise ValueError(f"the voice has latents of shape {tuple(self.latents.shape)}; expected [frames, {config.latent_dim}]: "
                             "it was made with another checkpoint, make it again with model.voice(...)")
        if not (len(self.latents) and self.latents.is_floating_point() and self.latents.isfinite().all()):
            raise ValueError(f"the voice has {len(self.latents)} frames of {self.latents.dtype}, or some are not finite; "
                             "expected finite floating point numbers: make it again with model.voice(...)")
        return self

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whose name says so: `model.voice` takes any other for a recording."""
        if Path(path).suffix != ".safetensors":
            raise ValueError(f"the voice's file is {str(path)!r}; expected a name that ends in .safetensors")
        try:
            save_file({"latents": self.latents.contiguous()}, str(path), metadata={"michiai_voice": "1"})
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be written ({error}); expected a folder that is there and may be written to") from error

    @staticmethod
    def load(path: str | Path) -> "Voice":
        """Read a file written by `save`."""
        try:
            with safe_open(str(path), "pt") as f:
                if (f.metadata() or {}).get("michiai_voice") != "1":
                    raise ValueError(f"{path} is not a voice of version 1; expected a file written by Voice.save")
                return Voice(f.get_tensor("latents"))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read as a voice ({error}); expected a file written by Voice.save") from error
