"""What several commands share: arguments, checks, reading and writing."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from michiai.evaluation.load import ROOT


def add_model(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--model",
        default=str(ROOT),
        metavar="DIR",
        help="folder of a checkpoint; default: the one in this repository",
    )


def check_packages(what: str, names: tuple[str, ...], install: str) -> None:
    """Raises where a package that `what` needs is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ValueError(f"{what} needs {', '.join(missing)}, not found here; expected what `{install}` brings")


def check_device(device: str) -> None:
    """Raises where it is neither the CPU nor a GPU that torch finds here."""
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    found = ["cpu", *(["cuda"] if gpus else []), *gpus]
    if device not in found:
        raise ValueError(f"--device is {device!r}; expected {' or '.join(found)}, all that torch finds here: "
                         "if a GPU is missing, see nvidia-smi and torch.version.cuda")


def add_speaking(p: argparse.ArgumentParser) -> None:
    """Voice, guidance, steps and seed."""
    p.add_argument(
        "--voice",
        metavar="FILE",
        help="voice to speak in: 1 to 30 s of a recording, or a .safetensors file of Voice.save",
    )
    p.add_argument("--guidance", type=float, metavar="W",
                   help="how far to go beyond the --voice, away from no voice: nearer to it, but less clear (0.5; default: not at all)")
    p.add_argument(
        "--steps",
        type=int,
        default=1,
        metavar="N",
        help="flow steps per frame (default 1, which is what it is trained for)",
    )
    p.add_argument(
        "--seed", type=int, default=0, help="of all random draws; the same seed gives the same sound"
    )


def options_of(args: argparse.Namespace) -> Any:
    """The GenerationOptions of what `add_speaking` added."""
    from michiai.session_michiai import GenerationOptions

    options = GenerationOptions(flow_steps=args.steps, voice_guidance=args.guidance)
    if args.guidance and not args.voice:
        raise ValueError(f"--guidance is {args.guidance:g} and there is no --voice; expected both: the checkpoint's own needs no guidance")
    return options


def read_voice(model: Any, path: str | None) -> Any:
    """A Voice, or None for the checkpoint's own."""
    from michiai.voice_michiai import Voice

    if path is None:
        return None
    return Voice.load(path).check(model.config) if path.endswith(".safetensors") else model.voice(path)


def read_text(path: str | None, what: str) -> str:
    if path is None:
        return ""
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{what} is {path!r}, which cannot be read ({error}); expected a text file"
        ) from error
    if not text:
        raise ValueError(f"{what} is {path!r}, which is empty; expected some sentences")
    return text


def check_output(path: str, suffixes: tuple[str, ...], inputs: tuple[str | None, ...] = ()) -> str:
    """The path, if it can be written and is none of the `inputs`: asked before the work is done."""
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise ValueError(f"the output is {path!r}; expected a name that ends in {' or '.join(suffixes)}")
    if not target.resolve().parent.is_dir():
        raise ValueError(
            f"the output is {path!r}, but there is no folder {str(target.parent)!r}; expected one"
        )
    is_new = not target.exists()
    for given in filter(None, inputs):
        if not is_new and Path(given).exists() and target.samefile(given):
            raise ValueError(f"the output is {path!r}, which is also given as an input; expected another file: that one would be lost")
    try:
        target.open("ab").close()
    except OSError as error:
        raise ValueError(f"the output is {path!r}, which cannot be written ({error.strerror}); expected a writable file") from error
    if is_new:
        target.unlink()
    return path


def write_wav(path: str, audio: Any, rate: int) -> None:
    """float [N] or [N, channels] -> 16 bit WAV."""
    import soundfile

    soundfile.write(path, audio.clamp(-1, 1).numpy(), rate, subtype="PCM_16")


def add_parts(parser: argparse.ArgumentParser, parts: tuple[str, ...]) -> None:
    """`--parts`: some of `parts`, which the command's epilog explains."""
    parser.add_argument("--parts", nargs="+", default=list(parts), choices=parts, metavar="PART", help="some of the parts below")
