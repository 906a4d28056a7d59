"""Releases: clean folders that load by themselves, and uploads that hold exactly them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

import hub
import release
from helpers import ROOT


def test_dry_run_lists_both_and_writes_nothing(tmp_path: Path, capsys) -> None:
    assert release.main(["--dry-run", "--out", str(tmp_path), "--model", "me/m", "--space", "me/s"]) == 0
    printed = capsys.readouterr().out
    assert "model repository me/m" in printed and "space repository me/s" in printed
    assert printed.count("  model.safetensors") == 2 and printed.count("app.py") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["model", "space"])
def test_a_folder_is_clean_and_loads_from_the_hubs_cache(kind: str, tmp_path: Path) -> None:
    folder = release.write(kind, tmp_path)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert ("vocoder/model.safetensors" in names) == (kind == "model")
    assert "model.safetensors" in names and ("app.py" in names) == (kind == "space")
    assert not any(
        part in name for name in names for part in ("__pycache__", "test", "training", "LOG", ".git")
    )
    card = (folder / "README.md").read_text()
    assert ("sdk_version: 5.50.0" in card) == (kind == "space") and ("pipeline_tag" in card) == (
        kind == "model"
    )
    assert "[`docs/speed.md`](docs/speed.md)" in card and "](LOG.md)" not in card and "`LOG.md`" in card
    said = release.check(kind, folder, "somebody/michi-ai")
    if kind == "model":
        assert said["frames"] == 12 and said["parameters"] > 1e6
    else:
        assert set(said["endpoints"]) == {"/converse", "/speak", "/transcribe", "/clone"} and said["heard"]


def test_a_folder_that_does_not_load_is_said(tmp_path: Path) -> None:
    folder = release.write("model", tmp_path)
    (folder / "voice_michiai.py").unlink()
    with pytest.raises(ValueError, match="the model folder does not load"):
        release.check("model", folder, "a/b")


def test_pins_must_agree(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nsdk_version: 5.49.0\n---\n")
    (tmp_path / "requirements.txt").write_text("gradio==5.50.0\n")
    with pytest.raises(ValueError, match="5.49.0.*5.50.0"):
        release.check_pins(tmp_path)
    release.check_pins(ROOT)


EXAMPLES = "question", "question_hello", "question_meeting", "voice_ada", "voice_ben", "voice_cleo"
UPLOAD = "import sys, pathlib, release; print(release.upload(sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], sys.argv[4]))"


def run(code: str, *args: object, endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    """`code` in a fresh process that knows one Hub, and nothing of what others downloaded from it."""
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN", "PYTHONPATH")}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "PYTHONPATH": str(ROOT / "scripts"), "TRANSFORMERS_VERBOSITY": "error"}
    env["HF_HUB_DISABLE_XET"] = "1"  # large files by git-lfs: the Hub of the tests has no Xet storage
    return subprocess.run([sys.executable, "-c", code, *map(str, args)], env=env, cwd=home, text=True, capture_output=True, timeout=300)


def test_what_is_uploaded_is_what_from_pretrained_downloads(tmp_path: Path) -> None:
    """The Hub's real client both ways, against a Hub of this process."""
    folder, home = release.write("model", tmp_path / "out"), tmp_path / "home"
    home.mkdir()
    with hub.serve("hf_x") as site:
        sent = run(UPLOAD, "model", folder, "me/m", "hf_x", endpoint=site.address, home=home)
        assert sent.returncode == 0, sent.stderr
        repo = site.files["model", "me/m"]
        written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert {name: data for name, data in repo.items() if name != ".gitattributes"} == written
        examples = "page.png", "answer.png", *(f"{name}.wav" for name in EXAMPLES)
        large = {written[name] for name in ("model.safetensors", "vocoder/model.safetensors", *(f"examples/{name}" for name in examples))}
        assert set(site.large.values()) == large and len(site.large) == 10, "weights, pictures and sounds go to large storage, once"
        loaded = run(release.LOAD_MODEL, "me/m", endpoint=site.address, home=home)
        assert loaded.returncode == 0, loaded.stderr
        assert json.loads(loaded.stdout.splitlines()[-1])["frames"] == 12
        assert {"config.json", "model.safetensors", "modeling_michiai.py", "tokenizer.json"} <= set(site.downloads)


def test_a_release_replaces_the_one_before(tmp_path: Path) -> None:
    folder, home = release.write("space", tmp_path / "out"), tmp_path / "home"
    home.mkdir()
    with hub.serve("hf_x") as site:
        assert run(UPLOAD, "space", folder, "me/s", "hf_x", endpoint=site.address, home=home).returncode == 0
        (folder / "space" / "page.py").unlink()
        (folder / "app.py").write_text("print()")
        again = run(UPLOAD, "space", folder, "me/s", "hf_x", endpoint=site.address, home=home)
        assert again.returncode == 0, again.stderr
        repo = site.files["space", "me/s"]
        assert repo["app.py"] == b"print()" and "space/page.py" not in repo and "space/live.py" in repo
        assert "sdk_version: 5.50.0" in repo["README.md"].decode()
        assert site.commits["space", "me/s"] == ["initial commit", "Release", "Release"]


def test_a_token_that_the_hub_does_not_take_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\n---\n")
    with hub.serve("hf_x") as site:
        refused = run(UPLOAD, "model", tmp_path, "me/m", "hf_wrong", endpoint=site.address, home=tmp_path)
        assert "ValueError: the Hub refused the model repository me/m (" in refused.stderr and "401" in refused.stderr
        assert not site.files
