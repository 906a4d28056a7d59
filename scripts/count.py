"""Count the parameters of a configuration, part by part, without making them.

python scripts/count.py configs/530m/config.json
"""

import argparse
import json
from pathlib import Path

import torch

from michiai.configuration_michiai import MichiAIConfig
from michiai.modeling_michiai import MichiAIModel

PARTS = {
    "Listen head": ("listen.",),
    "Backbone: text LLM": ("backbone.language_model.",),
    "Backbone: projections": ("backbone.",),
    "Speak head": ("speak_head.",),
    "Vocoder": ("vocoder.",),
    "Codec encoder": ("codec.",),
}


def count(config: MichiAIConfig) -> dict[str, int]:
    """Parameters of each part, tied ones once, and their `Total`."""
    with torch.device("meta"):
        model = MichiAIModel(config)
    counts = dict.fromkeys(PARTS, 0)
    for name, p in model.named_parameters():
        part = next(part for part, prefixes in PARTS.items() if name.startswith(prefixes))
        counts[part] += p.numel()
    return counts | {"Total": sum(counts.values())}


def shapes(config: MichiAIConfig) -> dict[str, str]:
    """What each part is made of, in words."""
    text, listen, speak = config.text_config, config.listen_config, config.speak_config
    vocoder, codec = config.vocoder_config, config.codec_config
    rates = " x ".join(map(str, vocoder.upsample_rates))
    return {
        "Listen head": f"causal transformer, {listen.layers} x {listen.width}",
        "Backbone: text LLM": f"{text.model_type}, {text.num_hidden_layers} x {text.hidden_size}, {text.vocab_size:,} pieces",
        "Backbone: projections": "what lets it hear and speak",
        "Speak head": f"AdaLN MLP, {speak.depth} x {speak.width}, rectified flow",
        "Vocoder": f"HiFi-GAN generator, trunk {vocoder.width}, upsampling {rates}, inverse STFT",
        "Codec encoder": f"convolutions {codec.width} wide, {codec.latent_dim} latents at {config.frame_rate:g} Hz",
        "Total": f"{config.sampling_rate // 1000} kHz",
    }


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "config", type=Path, nargs="?", default=Path(__file__).resolve().parents[1] / "config.json"
    )
    args = p.parse_args()
    config = MichiAIConfig.from_dict(json.loads(args.config.read_text()))
    counts, described = count(config), shapes(config)
    print("| part | what it is | parameters |\n|---|---|---:|")
    for part, n in counts.items():
        print(f"| {part} | {described[part]} | {n / 1e6:.1f} M |")
    print(json.dumps({part: n for part, n in counts.items()}))


if __name__ == "__main__":
    main()
