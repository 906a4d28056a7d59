"""Models by the path of their folder."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

ROOT = Path(__file__).resolve().parents[1]


def load_model(path: str | Path = ROOT, device: str = "cpu") -> Any:
    """A model in evaluation mode; what is wrong with its folder is said in one sentence."""
    from transformers.utils import logging

    from michiai.modeling_michiai import MichiAIModel

    folder = Path(path)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ValueError(
                f"--model is {str(path)!r}, which holds no {name}; expected a checkpoint's folder"
            )
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # a table of misfits, and then the error that says the same
    try:
        model = MichiAIModel.from_pretrained(str(folder), dtype=torch.float32)
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"the weights in {folder} do not fit their config.json ({error})") from error
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    return model.to(device).eval()


def random_model(config_folder: str | Path, device: str = "cpu") -> Any:
    """A model of a preset with random weights: its speed does not depend on the values."""
    from michiai.configuration_michiai import MichiAIConfig
    from michiai.modeling_michiai import MichiAIModel

    torch.manual_seed(0)
    return MichiAIModel(MichiAIConfig.from_pretrained(str(config_folder))).to(device).eval()
