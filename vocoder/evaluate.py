"""What encoder and vocoder keep of speech: log-mel distance, words (PocketSphinx), voice (resemblyzer).

    python -m michiai.vocoder.evaluate --data out/test --codec out/codec/model.safetensors --clips 40

The test is turns of the model's channel, encoded and resynthesised; the recogniser also hears the originals,
which is the best that can be reached. The last line is one JSON object.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from michiai.codec_michiai import AudioEncoder
from michiai.configuration_michiai import MichiAIConfig
from michiai.evaluation.referees import RATE, embed_speaker, recognise, word_errors
from michiai.processing_michiai import resample
from michiai.training.audio_data import MODEL
from michiai.training.common import add_config, load_part, read_config
from michiai.training.encoder import load_encoder
from michiai.training.shards import Shard
from michiai.vocoder_michiai import Vocoder

Clip = tuple[np.ndarray, list[str]]  # samples at the model's rate, words


def turns(folder: Path, voice: str, limit: int, sampling_rate: int) -> list[Clip]:
    """Audio and words of the first `limit` model turns of 1 to 8 s by voices whose id starts with `voice`."""
    found: list[Clip] = []
    for path in sorted(folder.glob("*.safetensors")):
        shard = Shard(path, sampling_rate)
        for number, line in enumerate(path.with_suffix(".jsonl").read_text().splitlines()):
            info = json.loads(line)
            if not info["model_voice"].startswith(voice):
                continue
            for turn in (t for t in info["turns"] if t["who"] == "model"):
                a, b = turn["start"] - 0.1, turn["end"] + 0.2
                words = [
                    w for w, begin, end in info["model_words"] if a <= begin and end <= b and w[0] != "<"
                ]
                if 1 < b - a < 8 and len(words) > 2 and len(found) < limit:
                    piece = shard.read(number, max(0, int(a * sampling_rate)), int(b * sampling_rate), MODEL)
                    found.append((piece.astype(np.float32) / 32768, words))
    return found


def evaluate(codec: AudioEncoder, vocoder: Vocoder, clips: list[Clip], config: MichiAIConfig) -> dict[str, float]:
    """All figures of one checkpoint, as means over the clips; word errors are per word."""
    rows, rate = [], config.sampling_rate
    n_words = sum(len(words) for _, words in clips)
    for audio, words in clips:
        x = torch.from_numpy(np.pad(audio, (0, -len(audio) % config.frame_size)))[None]
        began = time.perf_counter()
        with torch.inference_mode():
            made = vocoder(codec(x))
            seconds = time.perf_counter() - began
            mel = 2 * (codec.mel(made) - codec.mel(x)).abs().mean().item()  # in natural log units
        seconds *= rate / made.shape[1]
        original, made = (resample(sound[0], rate, RATE).numpy() for sound in (x, made))
        errors = [word_errors(words, recognise(a)) for a in (original, made)]
        rows.append([mel, *errors, float(embed_speaker(original) @ embed_speaker(made)), seconds])
    rows = np.array(rows)
    return {
        "clips": len(clips),
        "words": n_words,
        "mel_distance": rows[:, 0].mean(),
        "wer_original": rows[:, 1].sum() / n_words,
        "wer_reconstruction": rows[:, 2].sum() / n_words,
        "speaker_similarity": rows[:, 3].mean(),
        "real_time_factor": rows[:, 4].mean(),
    }


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", type=Path, required=True, help="folder of test shards")
    p.add_argument("--codec", type=Path, required=True, help="model.safetensors with codec, and with vocoder where --vocoder is left out")
    p.add_argument("--vocoder", type=Path, nargs="*", help="other weights of the vocoder, one or several to compare")
    add_config(p)
    p.add_argument("--clips", type=int, default=40)
    p.add_argument(
        "--voice", default="flite", help="start of the voices' ids: the recogniser knows flite best"
    )
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args(argv)
    torch.set_num_threads(args.threads)
    config = read_config(args.config)
    codec, vocoder = load_encoder(args.codec, config), Vocoder(config).eval()
    clips = turns(args.data, args.voice, args.clips, config.sampling_rate)
    results = {}
    for path in args.vocoder or [args.codec]:
        load_part(vocoder, path, "vocoder.")
        results[str(path)] = {k: round(float(v), 4) for k, v in evaluate(codec, vocoder, clips, config).items()}
        print(path, *(f"\n  {name:20s} {value}" for name, value in results[str(path)].items()))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
