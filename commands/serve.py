"""serve: conversations over a WebSocket, for programs."""

import argparse
import os
from pathlib import Path

import torch

from michiai.evaluation.load import ROOT, load_model

from .shared import add_model, check_packages, read_voice

HELP = "converse over a WebSocket, as clients of OpenAI's Realtime API do"
NEEDS = ("starlette", "uvicorn", "websockets")
VOICES = (".wav", ".flac", ".ogg", ".mp3", ".safetensors")
LARGEST = 16 * 2**20  # bytes of a message: some 4 minutes of sound


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "serve", help=HELP,
        description=f"{HELP}: ws://HOST:PORT/v1/realtime. With MICHIAI_API_KEY in the environment clients must send that key.",
    )
    add_model(p)
    p.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    p.add_argument("--port", type=int, default=os.environ.get("PORT", 8000),
                   help="port to listen at (default: PORT of the environment, or 8000)")
    p.add_argument("--sessions", type=int, default=4, help="conversations at once (default: %(default)s)")
    p.add_argument("--idle", type=float, default=300, metavar="SECONDS",
                   help="end the conversation of a client that sends nothing for so long (default: %(default)s)")
    p.add_argument("--voices", type=Path, default=ROOT / "examples", metavar="DIR",
                   help="folder of voices that clients may ask for by the name of the file: recordings, or files of Voice.save "
                        "(default: those of the examples)")
    p.set_defaults(run=run)


def read_voices(model: object, folder: Path) -> dict:
    """{name: Voice} of a folder; of the examples those whose files are named voice_NAME."""
    if not folder.is_dir():
        raise ValueError(f"--voices is {str(folder)!r}, which is no folder; expected one of recordings or voice files")
    found = sorted(folder.glob("voice_*" if folder == ROOT / "examples" else "*"))
    return {path.stem.removeprefix("voice_"): read_voice(model, str(path)) for path in found if path.suffix in VOICES}


def run(args: argparse.Namespace) -> None:
    if not 0 <= args.port <= 65_535:
        raise ValueError(f"--port is {args.port}; expected 0 to 65535")
    if args.sessions < 1 or not args.idle > 0:
        raise ValueError(f"--sessions is {args.sessions} and --idle is {args.idle:g}; expected 1 or more, and more than 0 s")
    check_packages("the server", NEEDS, "pip install -e .[serve]")
    import uvicorn

    from michiai.serving.server import Server

    torch.set_num_threads(1)  # models this small are fastest on one thread
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(args.model, device)
    voices = read_voices(model, args.voices)
    model.optimize().warm_up()
    server = Server(model, "michiai", voices, args.sessions, os.environ.get("MICHIAI_API_KEY"), args.idle)
    print(f"voices: {', '.join(['default', *voices])}\nlistening at ws://{args.host}:{args.port}/v1/realtime", flush=True)
    uvicorn.run(server.app, host=args.host, port=args.port, ws_max_size=LARGEST, log_level="warning")
