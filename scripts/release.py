"""Clean folders for the two repositories on the Hub, each loaded before it goes anywhere.

python scripts/release.py --dry-run                        # what would go where
python scripts/release.py                                  # writes out/release/{model,space}, loads both
python scripts/release.py --token hf_... --model me/michiai --space me/michiai-talk      # and uploads them

Each folder is laid out as the Hub's cache would hold it, and loaded from there by a fresh process without a
network: the model by `AutoModel.from_pretrained`, the Space by starting its `app.py` and calling its API.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = ("*_michiai.py",)
WEIGHTS = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "processor_config.json",
)
CARD = ("README.md", "docs/*.md", "LICENSE", "examples/*")
CONTENTS = {
    "model": (*CODE, *WEIGHTS, *CARD, "vocoder/README.md"),
    "space": (
        *CODE,
        *WEIGHTS,
        *CARD,
        "app.py",
        "requirements.txt",
        "packages.txt",
        "space/*",
        "evaluation/__init__.py",
        "evaluation/plots.py",
    ),
}
# front matter of README.md that belongs to one kind alone
ONLY = {
    "model": ("language", "library_name", "pipeline_tag"),
    "space": (
        "title",
        "emoji",
        "colorFrom",
        "colorTo",
        "sdk",
        "sdk_version",
        "python_version",
        "app_file",
        "short_description",
        "pinned",
    ),
}
LOAD_MODEL = """
import json, sys, torch
from transformers import AutoModel, AutoProcessor
model, info = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, output_loading_info=True)
AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
assert not any(info.values()), info
vocoder = AutoModel.from_pretrained(sys.argv[1], subfolder="vocoder", trust_remote_code=True)
latents = torch.randn(1, 3, model.config.latent_dim)
assert torch.allclose(vocoder(latents), model.vocoder(latents), atol=1e-4), "the vocoder alone sounds otherwise"
with model.session(context="the train leaves at nine.") as session:
    frames = session.push(torch.zeros(model.config.sampling_rate))
assert frames and all(frame.audio.isfinite().all() for frame in frames)
print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), "frames": len(frames)}))
"""
LOAD_SPACE = """
import json, os, socket, subprocess, sys, time, urllib.request
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
address = f"http://127.0.0.1:{port}"
server = subprocess.Popen([sys.executable, "app.py"], env=os.environ | {"PORT": str(port)}, stdout=sys.stderr)
try:
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=60).read()
            break
        except OSError:
            assert server.poll() is None, "app.py ended"
            time.sleep(0.5)
    from gradio_client import Client, handle_file
    client = Client(address, verbose=False)
    text, words = client.predict(handle_file("examples/question.wav"), api_name="/transcribe")
    names = sorted(client.view_api(return_format="dict", print_info=False)["named_endpoints"])
    print(json.dumps({"endpoints": names, "heard": text}))
finally:
    server.terminate()
    server.wait(30)
"""


def files_of(kind: str, source: Path = ROOT) -> list[Path]:
    """What goes into a repository, relative to `source`; every entry of CONTENTS must be there."""
    found: list[Path] = []
    for pattern in CONTENTS[kind]:
        paths = sorted(path for path in source.glob(pattern) if path.is_file())
        if not paths:
            raise ValueError(
                f"{source} holds no {pattern}; expected a complete checkout with a checkpoint: "
                "see scripts/assemble.py"
            )
        found += [path.relative_to(source) for path in paths]
    return found


def front_matter(readme: str, kind: str) -> str:
    """README.md with the front matter of one kind of repository."""
    import yaml

    match = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    if not match:
        raise ValueError("README.md begins with no front matter; expected `---` lines around YAML")
    other = ONLY["space" if kind == "model" else "model"]
    kept = {key: value for key, value in yaml.safe_load(match[1]).items() if key not in other}
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n{readme[match.end() :]}"


def without_dead_links(text: str, page: Path) -> str:
    """Markdown whose links to files that do not lie beside its page are plain words."""
    links = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")
    return links.sub(lambda link: link[0] if (page.parent / link[2]).exists() else link[1], text)


def check_pins(source: Path = ROOT) -> None:
    """The Space's builder installs the Gradio of the front matter: it must be that of requirements.txt."""
    said = re.search(
        r"^sdk_version: (\S+)$", (source / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    pinned = re.search(
        r"^gradio==(\S+)$", (source / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    if not said or not pinned or said[1].strip('"') != pinned[1]:
        raise ValueError(
            f"README.md has sdk_version {said and said[1]}, requirements.txt has "
            f"gradio=={pinned and pinned[1]}; expected the same"
        )


def write(kind: str, out: Path, source: Path = ROOT) -> Path:
    """Copy the files of one repository into an empty folder `out` / kind."""
    check_pins(source)
    folder = out / kind
    shutil.rmtree(folder, ignore_errors=True)
    for path in files_of(kind, source):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, folder / path)
    readme = folder / "README.md"
    readme.write_text(front_matter(readme.read_text(encoding="utf-8"), kind), encoding="utf-8")
    for page in (readme, *(folder / "docs").glob("*.md")):
        page.write_text(without_dead_links(page.read_text(encoding="utf-8"), page), encoding="utf-8")
    if kind == "model":
        write_vocoder(folder)
    return folder


def write_vocoder(folder: Path) -> None:
    """The vocoder of a model's folder as a model of its own, in a folder in it."""
    from safetensors.torch import load_file, save_file

    weights = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name.startswith("vocoder.")}
    save_file(weights, folder / "vocoder" / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    auto_map = {"AutoConfig": "configuration_michiai.MichiAIVocoderConfig", "AutoModel": "vocoder_michiai.VocoderModel"}
    config |= {"model_type": "michiai_vocoder", "architectures": ["VocoderModel"], "auto_map": auto_map}
    (folder / "vocoder" / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def check(kind: str, folder: Path, name: str) -> dict:
    """Load a folder from a simulated Hub cache, in a fresh process without a network -> what it said."""
    with tempfile.TemporaryDirectory() as home:
        base = Path(home) / "hub" / f"{kind}s--{name.replace('/', '--')}"
        (base / "refs").mkdir(parents=True)
        (base / "refs" / "main").write_text(COMMIT)
        place = base / "snapshots" / COMMIT
        shutil.copytree(folder, place)
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MODEL_ID", "SPACE_ID")}
        env |= {
            "HF_HOME": home,
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        script, where = (LOAD_MODEL, home) if kind == "model" else (LOAD_SPACE, place)
        done = subprocess.run(
            [sys.executable, "-c", script, name], env=env, cwd=where, text=True, capture_output=True
        )
        if done.returncode:
            raise ValueError(f"the {kind} folder does not load:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def upload(kind: str, folder: Path, name: str, token: str) -> str:
    """Put a folder in its repository, which then holds nothing else; returns the commit's address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        api.create_repo(
            name, repo_type=kind, exist_ok=True, **({"space_sdk": "gradio"} if kind == "space" else {})
        )
        done = api.upload_folder(
            folder_path=folder, repo_id=name, repo_type=kind, commit_message="Release", delete_patterns="*"
        )
    except HfHubHTTPError as error:
        raise ValueError(f"the Hub refused the {kind} repository {name} ({error}); expected a token that may write there") from error
    return str(done)


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="The token may also stand in HF_TOKEN."
    )
    p.add_argument("--out", type=Path, default=ROOT / "out" / "release", help="where the folders are written")
    p.add_argument("--model", default="michiai/michiai", metavar="ORG/NAME", help="model repository")
    p.add_argument("--space", default="michiai/michiai", metavar="ORG/NAME", help="Space")
    p.add_argument(
        "--token",
        default=os.environ.get("HF_TOKEN"),
        help="upload with it; without one nothing leaves this machine",
    )
    p.add_argument("--dry-run", action="store_true", help="only list what would go where")
    args = p.parse_args(argv)
    names = {"model": args.model, "space": args.space}
    try:
        check_pins()
        for kind, name in names.items():
            files = files_of(kind)
            size = sum((ROOT / path).stat().st_size for path in files)
            print(f"{kind} repository {name}: {len(files)} files, {size / 2**20:.1f} MiB")
            if args.dry_run:
                print("".join(f"  {(ROOT / path).stat().st_size:>10,}  {path}\n" for path in files), end="")
                if kind == "model":
                    print("  and, taken from these, vocoder/config.json and vocoder/model.safetensors")
                continue
            folder = write(kind, args.out)
            print(f"  written to {folder}; loaded from a simulated Hub cache: {check(kind, folder, name)}")
            if args.token:
                print(f"  uploaded: {upload(kind, folder, name, args.token)}")
    except ValueError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
