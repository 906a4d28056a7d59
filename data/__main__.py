"""python -m michiai.data OUT --hours 16 --seed 1 --split train --workers 2"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np

from .grammar import make_script
from .shards import write_shards
from .tts import KOKORO, TRACTS, is_whole_held_out, sample_voice
from .wide import dictation, in_voices, reading, recorded


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m michiai.data", description="Synthesise shards of two-channel dialogues."
    )
    parser.add_argument("out", type=Path, help="folder for the shards; shards already there are kept")
    parser.add_argument("--hours", type=float, default=16, help="stop when this much is there")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--workers", type=int, default=2, help="processes; the dialogues do not depend on it")
    wide = parser.add_mutually_exclusive_group()
    wide.add_argument("--text", type=Path, help="a folder of public dialogues (*.jsonl.gz): a user says sentences and words of theirs, "
                      "and nobody answers; for the listen head")
    wide.add_argument("--speech", type=Path, help="a folder of recordings (manifest.jsonl): a person says them, and nobody answers; "
                      "for the listen head")
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--dictation", action="store_true", help="a user alone says questions of the domain, in which rare words are as "
                       "likely as common ones, and two of them crossed; --text adds to these; for the listen head")
    alone.add_argument("--reading", action="store_true", help="the model alone reads answers of the domain aloud, and "
                        "sentences and words of --text where that is given, or the recordings of --speech in their speakers' voices; "
                        "for the speak head")
    parser.add_argument("--voices", nargs="+", metavar="NAME", choices=[*(name for name in TRACTS if "+" not in name), "kokoro"],
                        default=(), help="the users, or who reads, speak in these voices alone, each as often; kokoro: all of its own in "
                        "the split and the means of two of them")
    args = parser.parse_args()
    if args.dictation and args.speech:
        parser.error("--dictation is said by engines, --speech by people: choose one")
    if args.voices and args.speech:
        parser.error("--voices are engines', --speech has its own: choose one")
    script = None
    if args.speech:
        script = partial(recorded, folder=args.speech, split=args.split, role="model" if args.reading else "user")
    elif args.reading:
        script = partial(reading, folder=args.text)
    elif args.text or args.dictation:
        script = partial(dictation, folder=args.text)
    if args.voices:
        own = [name for name in KOKORO if is_whole_held_out(name) == (args.split == "test")]
        names = tuple(dict.fromkeys(name for given in args.voices for name in (own if given == "kokoro" else (given,))))
        try:
            for name in names:
                sample_voice(np.random.default_rng(0), args.split, only=(name,))
        except ValueError as error:
            parser.error(f"--voices: {error}")
        script = partial(in_voices, make=script or partial(make_script, split=args.split), names=names, split=args.split)
    manifest = write_shards(args.out, args.hours, args.seed, args.split, args.workers, script)
    print(json.dumps({k: manifest[k] for k in ("split", "shards", "dialogues", "hours", "behaviours")}))


if __name__ == "__main__":
    main()
