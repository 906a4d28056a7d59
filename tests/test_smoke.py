"""Every stage of the recipe, at a tiny size, from synthesis to a conversation."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT

MISSING = [tool for tool in ("espeak-ng", "flite", "festival") if shutil.which(tool) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the synthesis needs {' '.join(MISSING)} (apt-get install)")
def test_every_stage_runs_and_fits_the_next(tmp_path: Path) -> None:
    env = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", str(ROOT / "runs" / "smoke.sh"), str(tmp_path)], env=env, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-2500:]
    assert "every stage ran" in done.stdout
    assert (tmp_path / "model" / "model.safetensors").stat().st_size <= 32 * 2**20
    for name in ("answer.wav", "answer.png", "duplex/loss.png"):
        assert (tmp_path / name).stat().st_size > 5000
