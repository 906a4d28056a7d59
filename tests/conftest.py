"""What the tests share: a tokenizer of the grammar, a tiny random model, its folder, the Space's engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    """The grammar's tokenizer, small."""
    from michiai.data.grammar import make_script
    from michiai.data.text import dialogue_text
    from michiai.training.tokenizer import train

    rng = np.random.default_rng(0)
    return train([dialogue_text(make_script(rng, "train"), rng) for _ in range(100)], 400)


@pytest.fixture(scope="session")
def model(tokenizer):
    """A tiny random model with its tokenizer; tests never change its weights."""
    tiny = tiny_model(len(tokenizer))
    tiny.tokenizer = tokenizer
    return tiny


@pytest.fixture(scope="session")
def folder(model, tokenizer, tmp_path_factory) -> Path:
    """A complete model folder, as a clone would be."""
    from assemble import write_folder

    out = tmp_path_factory.mktemp("tiny")
    write_folder(model, tokenizer, out)
    return out


@pytest.fixture(scope="session")
def llm(tmp_path_factory, tokenizer) -> Path:
    """A random text LLM of somebody else: another shape, its own tokenizer without any of our tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    own = Tokenizer(models.BPE())
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog and the train leaves at nine"] * 9, trainer
    )
    out = tmp_path_factory.mktemp("llm")
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|endoftext|>").save_pretrained(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=40,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=5,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    return out


@pytest.fixture(scope="session")
def engine(folder) -> Iterator[Any]:
    """The tiny model as the Space holds it, with places for two; tests close what they open."""
    from space.engine import Engine

    made = Engine(str(folder), 2)
    yield made
    made.worker.stop()
