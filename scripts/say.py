"""Write a spoken sentence as the data synthesis makes it: a question to ask, or a reference to clone.

python scripts/say.py "what is three plus four" question.wav --before 0.5 --after 0.5
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

from michiai.data.tts import RATE, TRACTS, sample_voice, synthesise

PAUSE = 2.4  # seconds


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "text", help="in spoken form: lower case words, numbers as words; `|` is a pause for an answer"
    )
    p.add_argument("out", type=Path, help="WAV file, 16 kHz mono")
    p.add_argument(
        "--role", choices=("user", "model"), default="user", help="which side's voices to draw from"
    )
    p.add_argument(
        "--split", choices=("train", "test"), default="test", help="test voices are never trained on"
    )
    p.add_argument("--voice", choices=sorted(TRACTS), help="of the engines'; any of the role's if left out")
    p.add_argument("--sex", choices=("F", "M"), help="of the voice; either one if left out")
    p.add_argument("--seed", type=int, default=0, help="which voice")
    p.add_argument("--before", type=float, default=0.3, help="seconds of silence before")
    p.add_argument("--after", type=float, default=0.3, help="seconds of silence after")
    args = p.parse_args()
    only = (args.voice,) if args.voice else ()
    voice = sample_voice(np.random.default_rng(args.seed), args.split, args.role, args.sex, only)
    pieces = [np.zeros(round(args.before * RATE), np.float32)]
    for i, part in enumerate(args.text.split("|")):
        pieces += [
            np.zeros(round(PAUSE * RATE) if i else 0, np.float32),
            synthesise(part.strip(), voice).audio.astype(np.float32),
        ]
    pieces.append(np.zeros(round(args.after * RATE), np.float32))
    soundfile.write(args.out, np.concatenate(pieces), RATE, subtype="PCM_16")
    print(f"{voice.id}: {sum(map(len, pieces)) / RATE:.1f} s written to {args.out}")


if __name__ == "__main__":
    main()
