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
def engine(folder) -> Iterator[Any]:
    """The tiny model as the Space holds it, with places for two; tests close what they open."""
    from space.engine import Engine

    made = Engine(str(folder), 2)
    yield made
    made.worker.stop()
