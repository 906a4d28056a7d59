"""Releases: clean folders that load by themselves, and uploads that hold exactly them."""

from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

import release
from helpers import ROOT

pytestmark = pytest.mark.skipif(
    not (ROOT / "model.safetensors").exists(), reason="no checkpoint at the root yet"
)


def test_dry_run_lists_both_and_writes_nothing(tmp_path: Path, capsys) -> None:
    assert release.main(["--dry-run", "--out", str(tmp_path), "--model", "me/m", "--space", "me/s"]) == 0
    printed = capsys.readouterr().out
    assert "model repository me/m" in printed and "space repository me/s" in printed
    assert printed.count("model.safetensors") == 2 and printed.count("app.py") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["model", "space"])
def test_a_folder_is_clean_and_loads_from_the_hubs_cache(kind: str, tmp_path: Path) -> None:
    folder = release.write(kind, tmp_path)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert "model.safetensors" in names and ("app.py" in names) == (kind == "space")
    assert not any(
        part in name for name in names for part in ("__pycache__", "test", "training", "LOG", ".git")
    )
    card = (folder / "README.md").read_text()
    assert ("sdk_version: 5.50.0" in card) == (kind == "space") and ("pipeline_tag" in card) == (
        kind == "model"
    )
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


def test_upload_sends_exactly_the_folder(tmp_path: Path, monkeypatch) -> None:
    import huggingface_hub

    calls = []

    class Api:
        def __init__(self, token: str) -> None:
            calls.append(("token", token))

        def create_repo(self, name: str, **options: object) -> None:
            calls.append(("create", name, options))

        def upload_folder(self, **options: object) -> str:
            calls.append(("upload", options))
            return "https://huggingface.co/me/s/commit/1"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert release.upload("space", tmp_path, "me/s", "hf_x").endswith("commit/1")
    assert calls[0] == ("token", "hf_x")
    assert calls[1] == ("create", "me/s", {"repo_type": "space", "exist_ok": True, "space_sdk": "gradio"})
    assert calls[2][1]["folder_path"] == tmp_path and calls[2][1]["delete_patterns"] == "*"
