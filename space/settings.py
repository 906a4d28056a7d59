"""What the environment decides, read once."""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings:
    """See docs/serving.md for the environment variables."""

    model_id: str = str(ROOT)
    max_conversations: int = 4
    max_seconds: float = 300.0
    upload_seconds: int = 300  # after which visitors' files are deleted
    host: str = "127.0.0.1"
    port: int = 7860

    @staticmethod
    def from_environment() -> "Settings":
        on_space = bool(os.environ.get("SPACE_ID"))
        return Settings(
            os.environ.get("MODEL_ID") or str(ROOT),
            int(_number("MAX_CONVERSATIONS", 4, 1, 1000)),
            _number("MAX_SECONDS", 300, 15, 86_400),
            int(_number("UPLOAD_SECONDS", 300, 1, 86_400)),
            os.environ.get("HOST") or ("0.0.0.0" if on_space else "127.0.0.1"),
            int(_number("PORT", 7860, 1, 65_535)),
        )


def _number(name: str, default: float, low: float, high: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ValueError(
            f"the environment variable {name} is {text!r}; expected a number from {low:g} to {high:g}"
        )
    return value
