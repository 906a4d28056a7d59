"""Build a MichiAI checkpoint around a text LLM: the LLM as it is, all other parts random and ready to be trained.

    python scripts/warm_start.py --backbone SmolLM-360M --preset configs/530m/config.json --out OUT

`--backbone` is a folder of any `AutoModelForCausalLM` of the Llama kind with its tokenizer. Given text alone, the result computes
what the LLM computes. The tokens that frames need are added to the tokenizer; the embedding table grows by their rows.
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from michiai.configuration_michiai import SPECIAL_TOKENS, MichiAIConfig
from michiai.modeling_michiai import MichiAIModel

from assemble import write_folder

NOTHING = 0  # in frames, this id means "nothing new"


def add_special_tokens(llm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Grow tokenizer and embedding table by the tokens that frames need; returns their ids.

    `<pad>` is id 0 of any tokenizer: frames never say that token, which in SmolLM ends a document. In text it keeps its meaning.
    """
    piece = tokenizer.decode([NOTHING])
    if NOTHING not in tokenizer.all_special_ids and any(char.isalnum() for char in piece):
        raise ValueError(
            f"token 0 of the tokenizer is {piece!r}; expected a special token or a mark: frames use id 0 for 'nothing new'"
        )
    vocabulary = tokenizer.get_vocab()
    wanted = [name for name in SPECIAL_TOKENS if name != "<pad>" and name not in vocabulary]
    # the space before a mark is part of it: a frame holds one token
    tokenizer.add_tokens([AddedToken(name, lstrip=True, special=True, normalized=False) for name in wanted], special_tokens=True)
    if len(tokenizer) > (known := llm.get_input_embeddings().num_embeddings):
        llm.resize_token_embeddings(len(tokenizer))
        table = llm.get_input_embeddings().weight.detach()  # whose new rows are all the mean of the others, and frozen in training:
        table[known:] += table[:known].std(0) * torch.randn_like(table[known:])  # as they are, no two marks could be told apart
    vocabulary = tokenizer.get_vocab()
    return {name: NOTHING if name == "<pad>" else vocabulary[name] for name in SPECIAL_TOKENS}


def warm_start(
    backbone: Path, preset: Path | None = None, seed: int = 0
) -> tuple[MichiAIModel, PreTrainedTokenizerBase]:
    """A MichiAIModel around the LLM in the folder `backbone`, with its tokenizer; `preset` is a config.json for all other parts."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    llm = AutoModelForCausalLM.from_pretrained(backbone, dtype=torch.float32)
    text = llm.config
    if (
        not hasattr(llm, "model")
        or (getattr(text, "rope_parameters", None) or {}).get("rope_type") != "default"
    ):
        raise ValueError(
            f"{backbone} is a {type(llm).__name__} with rope_parameters {getattr(text, 'rope_parameters', None)}; "
            "expected an LLM of the Llama kind with plain rotary positions (rope_type 'default')"
        )
    special = add_special_tokens(llm, tokenizer)
    values = json.loads(preset.read_text()) if preset else {"spoken_text": False}
    values |= {
        "text_config": text,
        "special_tokens": special,
        "tie_word_embeddings": text.tie_word_embeddings,
    }
    config = MichiAIConfig.from_dict(values)
    if config.text_window + config.max_prompt > text.max_position_embeddings:
        raise ValueError(
            f"text_window {config.text_window} + max_prompt {config.max_prompt} is more than the {text.max_position_embeddings} "
            "positions that the LLM knows; choose a smaller text_window in the preset"
        )
    model = MichiAIModel(config).eval()
    model.backbone.language_model.load_state_dict(llm.state_dict())
    model.tokenizer = tokenizer
    return model, tokenizer


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--backbone", type=Path, required=True, help="folder of the text LLM and its tokenizer")
    p.add_argument(
        "--preset",
        type=Path,
        help="config.json of all other parts, for instance configs/530m/config.json; without: nano's",
    )
    p.add_argument("--out", type=Path, required=True, help="folder of the new model")
    p.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="of the weights on disk",
    )
    p.add_argument("--seed", type=int, default=0, help="of the random parts")
    args = p.parse_args()
    model, tokenizer = warm_start(args.backbone, args.preset, args.seed)
    write_folder(model, tokenizer, args.out, getattr(torch, args.dtype))
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters written to {args.out}")


if __name__ == "__main__":
    main()
