"""Merge the weights of all training stages into a model folder that `AutoModel.from_pretrained` loads.

    python scripts/assemble.py --codec RUN/encoder/model.safetensors --listen RUN/listen/model.safetensors \
        --duplex RUN/duplex/model.safetensors --vocoder RUN/vocoder/model.safetensors --tokenizer RUN/tokenizer \
        --default-voice VOICE.wav --out .

Weights are written in float16 and computed with in float32. Every tensor of the model must be there, and every tensor of
the stages must be known: the model's, or one that only training has.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from michiai.configuration_michiai import SPECIAL_TOKENS, MichiAIConfig, nano_text_config
from michiai.listen_michiai import PAD_ID
from michiai.modeling_michiai import DEFAULT_VOICE_FRAMES, MichiAIModel
from michiai.processing_michiai import MichiAIProcessor
from michiai.voice_michiai import Voice

ROOT = Path(__file__).resolve().parents[1]
CODE = "*_michiai.py"
TAKEN = {
    "codec": ("codec.",),
    "listen": ("listen.",),
    "duplex": ("backbone.", "speak_head."),
    "vocoder": ("vocoder.",),
}
TIED = "backbone.language_model.lm_head.weight"
# tensors that only training has, by the stage file in which they lie
TRAINING_ONLY = {
    "codec": ("teacher.", "vocoder.", "mel_head."),
    "listen": ("letters.",),
    "duplex": (),
    "vocoder": ("codec.", "mel_head.", "discriminator"),
}
AUTO_MAP = {"AutoConfig": "configuration_michiai.MichiAIConfig", "AutoModel": "modeling_michiai.MichiAIModel"}
MAX_BYTES = 32 * 2**20


def merge(files: dict[str, Path]) -> dict[str, Tensor]:
    """The tensors that each stage is there for: {"codec": file, "listen": file, "duplex": file, "vocoder": file} -> weights."""
    merged: dict[str, Tensor] = {}
    for stage, path in files.items():
        for name, tensor in load_file(str(path)).items():
            if name.startswith(TAKEN[stage]):
                merged[name] = tensor
            elif not name.startswith(TRAINING_ONLY[stage]):
                expected = [*TAKEN[stage], *TRAINING_ONLY[stage]]
                raise ValueError(
                    f"{path} holds {name!r}; expected names that start with one of {expected}: is it of the stage {stage}?"
                )
    return merged


def load_merged(model: MichiAIModel, weights: dict[str, Tensor]) -> None:
    """Load `weights` into `model`: nothing missing, nothing left over, and the same latents in codec and vocoder."""
    for name in ("latent_mean", "latent_std"):
        if not torch.equal(weights[f"codec.{name}"], weights[f"vocoder.{name}"]):
            raise ValueError(
                f"codec.{name} and vocoder.{name} differ; expected a vocoder trained on this codec's latents"
            )
    weights = {"default_voice": model.default_voice, **weights}
    weights.setdefault(TIED, weights["backbone.language_model.model.embed_tokens.weight"])
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise ValueError(
            f"the weights do not fit the model: missing {missing[:5]}, unexpected {unexpected[:5]}"
        )


def default_voice(model: MichiAIModel, source: str) -> Tensor:
    """Latents [DEFAULT_VOICE_FRAMES, L] of a reference recording, or of a file written by `Voice.save`."""
    voice = Voice.load(source) if source.endswith(".safetensors") else model.voice(source)
    latents = voice.check(model.config).latents
    if len(latents) < DEFAULT_VOICE_FRAMES:
        raise ValueError(
            f"{source} gives {len(latents)} frames of voice; expected at least {DEFAULT_VOICE_FRAMES}: "
            f"a reference of {DEFAULT_VOICE_FRAMES / model.config.frame_rate:g} s or more"
        )
    return latents[:DEFAULT_VOICE_FRAMES]


def write_weights(model: MichiAIModel, path: Path, dtype: torch.dtype = torch.float16) -> None:
    """Parameters in `dtype`; buffers (spectral windows, statistics of the latents) stay as they are: they are small."""
    state = model.state_dict()
    if model.config.text_config.tie_word_embeddings:
        state.pop(TIED)
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {
        name: t.detach().cpu().to(dtype if name in parameters else t.dtype).contiguous()
        for name, t in state.items()
    }
    broken = [name for name, t in tensors.items() if not torch.isfinite(t).all()]
    if broken:
        raise ValueError(f"{broken[:5]} are not finite as {dtype}; expected trained weights below 65504")
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_folder(
    model: MichiAIModel, tokenizer: PreTrainedTokenizerBase, out: Path, dtype: torch.dtype = torch.float16
) -> None:
    """Weights, configuration, tokenizer, processor and code: all that `from_pretrained(out, trust_remote_code=True)` needs."""
    out.mkdir(parents=True, exist_ok=True)
    write_weights(model, out / "model.safetensors", dtype)
    config = model.config.to_diff_dict()
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    config |= {
        "architectures": ["MichiAIModel"],
        "auto_map": AUTO_MAP,
        "model_type": "michiai",
        "dtype": "float32",
    }
    config["text_config"] = {
        k: v
        for k, v in model.config.text_config.to_diff_dict().items()
        if k not in ("dtype", "transformers_version")
    }
    write_json(out / "config.json", config)
    tokenizer.save_pretrained(out)
    settings = json.loads((out / "tokenizer_config.json").read_text())
    write_json(
        out / "tokenizer_config.json",
        {k: v for k, v in settings.items() if k not in ("name_or_path", "auto_map", "is_local")},
    )
    processor = {
        "auto_map": {"AutoProcessor": "processing_michiai.MichiAIProcessor"},
        "processor_class": "MichiAIProcessor",
        "sampling_rate": model.config.sampling_rate,
        "spoken_text": model.config.spoken_text,
    }
    write_json(out / "processor_config.json", processor)
    MichiAIProcessor(
        tokenizer, sampling_rate=model.config.sampling_rate
    )  # refuses a rate that it could not serve
    if out.resolve() != ROOT:
        for path in ROOT.glob(CODE):
            shutil.copy(path, out / path.name)


def write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of the tokens that frames need; all must be in the tokenizer, but for `<pad>`, which is id 0 of any."""
    vocabulary = tokenizer.get_vocab() | {"<pad>": PAD_ID}
    missing = [name for name in SPECIAL_TOKENS if name not in vocabulary]
    if missing:
        raise ValueError(
            f"the tokenizer lacks {missing}; expected one of michiai.training.tokenizer, or of scripts/warm_start.py"
        )
    return {name: vocabulary[name] for name in SPECIAL_TOKENS}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for stage, parts in TAKEN.items():
        p.add_argument(
            f"--{stage}",
            type=Path,
            required=True,
            help=f"weights that hold {', '.join(part + '*' for part in parts)}",
        )
    p.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    p.add_argument("--config", type=Path, metavar="FOLDER",
                   help="folder with config.json, for instance one that scripts/warm_start.py wrote; nano if left out")
    p.add_argument(
        "--default-voice",
        required=True,
        help="reference recording of 3.2 s or more, or a file written by Voice.save",
    )
    p.add_argument("--out", type=Path, required=True, help="folder of the model")
    p.add_argument(
        "--max-bytes", type=int, default=MAX_BYTES, help="refuse weights that are larger than this"
    )
    args = p.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    if args.config:
        config = MichiAIConfig.from_pretrained(args.config)
    else:
        config = MichiAIConfig(text_config=nano_text_config(len(tokenizer)))
    config.special_tokens = special_ids(tokenizer)
    model = MichiAIModel(config).eval()
    load_merged(model, merge({stage: getattr(args, stage) for stage in TAKEN}))
    model.default_voice.copy_(default_voice(model, args.default_voice))
    write_folder(model, tokenizer, args.out)
    size = (args.out / "model.safetensors").stat().st_size
    if size > args.max_bytes:
        raise SystemExit(
            f"{args.out / 'model.safetensors'} is {size:,} bytes; expected at most {args.max_bytes:,}: make the parts smaller"
        )
    total = sum(p.numel() for p in model.parameters())
    print(f"{total:,} parameters, {size:,} bytes written to {args.out}")


if __name__ == "__main__":
    main()
