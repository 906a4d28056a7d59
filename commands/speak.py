"""speak: text to speech in any voice."""

import argparse

import torch
from tqdm import tqdm

from michiai.evaluation.load import load_model

from .shared import add_model, add_speaking, check_output, options_of, read_voice, write_wav

HELP = "say a text, in the voice of a recording if one is given"


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser("speak", help=HELP, description=f"{HELP}.")
    p.add_argument("text", metavar="TEXT", help="what to say; <laugh>, <breath> and <cough> are sounds")
    p.add_argument("output", metavar="OUT.wav", help="file to write")
    add_model(p)
    add_speaking(p)
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_output(args.output, (".wav",), (args.voice,))
    options = options_of(args)
    model = load_model(args.model)
    frames = model.speak_stream(
        args.text, voice=read_voice(model, args.voice), options=options, seed=args.seed
    )
    audio = torch.cat(list(tqdm(frames, desc="speaking", unit="frame")))
    write_wav(args.output, audio, model.config.sampling_rate)
    print(f"{args.output}: {len(audio) / model.config.sampling_rate:.1f} s")
