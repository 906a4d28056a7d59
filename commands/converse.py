"""converse: hold a conversation with a recording."""

import argparse
from pathlib import Path

import torch

from michiai.evaluation.load import load_model

from .shared import add_model, add_speaking, check_output, options_of, read_text, read_voice, write_wav

HELP = "answer a recorded question: transcript with times, stereo WAV, and a plot if asked"


def add(commands: argparse._SubParsersAction) -> None:
    p = commands.add_parser(
        "converse",
        help=HELP,
        description=f"{HELP}. The conversation goes on after the end of the recording until "
        "the answer is finished.",
    )
    p.add_argument("input", metavar="IN.wav", help="what the user says: WAV, FLAC, Ogg or MP3 at any usual rate")
    p.add_argument("output", metavar="OUT.wav", help="stereo file to write: user left, MichiAI right")
    add_model(p)
    add_speaking(p)
    p.add_argument(
        "--context",
        metavar="FILE",
        help="text file with what it should know, for instance 'The train to Paris leaves at nine.'",
    )
    p.add_argument(
        "--instructions", default="", metavar="TEXT", help="who it is, for instance 'Your name is Nora.'"
    )
    p.add_argument(
        "--plot",
        nargs="?",
        const="",
        metavar="PNG",
        help="also draw both sides and the turn gate; default: OUT.png",
    )
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    check_output(args.output, (".wav",), (args.input, args.voice))
    picture = (
        None
        if args.plot is None
        else check_output(args.plot or str(Path(args.output).with_suffix(".png")), (".png",))
    )
    context = read_text(args.context, "--context")
    options = options_of(args)
    model = load_model(args.model)
    reply = model.converse(
        args.input,
        voice=read_voice(model, args.voice),
        instructions=args.instructions,
        context=context,
        options=options,
        seed=args.seed,
        progress=True,
    )
    write_wav(args.output, torch.stack([reply.user_audio, reply.audio], dim=1), reply.sampling_rate)
    for start, end, who, text in reply.transcript():
        print(f"{start:6.2f} - {end:6.2f} s  {'you' if who == 'user' else 'MichiAI':<8} {text}")
    if not reply.text:
        print("MichiAI said nothing.")
    spent = sum(frame.compute_seconds for frame in reply.frames)
    length = len(reply.audio) / reply.sampling_rate
    print(f"{args.output}: {length:.1f} s, computed in {spent:.1f} s ({spent / length:.2f} x real time)")
    if picture:
        from michiai.evaluation.plots import plot_reply

        plot_reply(reply, picture)
        print(f"{picture}: the conversation as a picture")
