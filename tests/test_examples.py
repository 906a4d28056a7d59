"""The examples run as they are, on the committed checkpoint."""

import runpy
import sys
from pathlib import Path

import pytest

from helpers import ROOT

SERVED = "realtime_client"  # needs a server: test_serving.py runs it
EXAMPLES = [path for path in sorted((ROOT / "examples").glob("*.py")) if path.stem != SERVED]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    assert len(path.read_text().splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), str(ROOT)])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed.strip()
    for wav in tmp_path.glob("*.wav"):
        assert wav.stat().st_size > 5000
    if path.stem == "text_only":
        assert "nine" in printed.split("<turn>")[1]


def test_the_question_is_bundled_and_small() -> None:
    assert 20_000 < (ROOT / "examples" / "question.wav").stat().st_size < 200_000
