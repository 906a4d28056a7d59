"""Stage 4: shards of audio -> shards of frames, with the frozen codec and listen head.

    python -m michiai.training.prepare --data RUN/data/train --codec RUN/codec/model.safetensors \
        --listen RUN/listen/model.safetensors --table RUN/table/model.safetensors --tokenizer RUN/tokenizer --out RUN/frames

Without `--listen` the user's text is that of the script, and the embeddings are absent: enough to start with. The duplex stage then reads
frames only: own latents and own text, and of the user what the listen head really heard, mistakes included.

With `--copies N` every clip is there N times more, played faster or slower: other vocal tracts, other voices (as the speed perturbation
of Ko et al., Interspeech 2015, which recognisers of speakers take for more speakers). For readings in voices that are few or slow to make.
"""

import argparse
import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from michiai.configuration_michiai import MichiAIConfig
from michiai.data.streams import place_words
from michiai.data.tts import to_rate
from michiai.listen_michiai import ListenHead, greedy_text
from michiai.optimize_michiai import half_is_fast
from michiai.training.audio_data import MODEL, USER, augment_audio, noise_bank, uniform, warp_mel
from michiai.training.common import add_config, load_part, read_config, save_tensors
from michiai.training.encoder import load_encoder
from michiai.training.listen import load_table
from michiai.training.shards import Shard

PASSES = 2  # of the listen head over a shard
SPEEDS = (0.85, 1.18)  # of copies


def own_stream(info: dict, tokenizer: PreTrainedTokenizerBase, n_frames: int, config: MichiAIConfig) -> list[int]:
    """The model's text stream [T]: `<turn>`, its words `text_lead` frames before their sound, `<done>` when the sound ends."""
    frame = 1 / config.frame_rate
    lead = config.speak_config.text_lead
    words: list[tuple[str, float, float]] = []
    for turn in info["turns"]:
        if turn["who"] != "model":
            continue
        start, end = turn["start"], turn["end"]
        spoken = [(w, s, e) for w, s, e in info["model_words"] if start - frame / 2 <= s < end]
        words.append(("<turn>", min(start, spoken[0][1] if spoken else start) - frame, start))
        words += spoken
        words.append(("<done>", end + lead * frame, end + lead * frame))
    return place_words(words, tokenizer, n_frames, at="start", offset_frames=lead, frame_rate=config.frame_rate)


def played(clip: np.ndarray, speed: float) -> np.ndarray:
    """An int16 clip [N] at another speed: [N / speed]."""
    return np.clip(to_rate(clip.astype(np.float32), 1 / speed), -32768, 32767).round().astype(np.int16)


def timed(info: dict, speed: float) -> dict:
    """The description of a dialogue that is played at another speed."""
    words = {name: [(word, start / speed, end / speed) for word, start, end in info[name]] for name in ("user_words", "model_words")}
    turns = [{**turn, "start": turn["start"] / speed, "end": turn["end"] / speed} for turn in info["turns"]]
    injections = [(time / speed, text) for time, text in info["injections"]]
    return {**info, **words, "turns": turns, "injections": injections, "model_voice": f"{info['model_voice']}:x{speed:.2f}"}


def pad_frames(rows: list[np.ndarray], frame_size: int) -> Tensor:
    """int16 clips of any length -> float [B, N], whole frames, zeros after the end."""
    length = math.ceil(max(map(len, rows)) / frame_size) * frame_size
    out = torch.zeros(len(rows), length)
    for row, clip in zip(out, rows, strict=True):
        row[: len(clip)] = torch.from_numpy(clip.astype(np.float32) / 32768)
    return out


class Preparer(nn.Module):
    """The frozen parts that turn audio into frames."""

    def __init__(self, config: MichiAIConfig, tokenizer: PreTrainedTokenizerBase, codec: str, listen: str | None, table: str):
        super().__init__()
        self.config, self.tokenizer, self.listen = config, tokenizer, None
        self.codec = load_encoder(codec, config)
        self.register_buffer("table", load_table(table), persistent=False)
        if listen:
            self.listen = ListenHead(config, config.text_config.hidden_size)
            load_part(self.listen, listen, "listen.")
        self.register_buffer("bank", noise_bank(60, config.sampling_rate), persistent=False)
        self.eval()

    def heard(self, infos: list[dict], user: Tensor, lengths: list[int]) -> dict[str, list[Tensor]]:
        """What is heard of `user` [B, N]: by the listen head, or as the script says."""
        due = {"at": "end", "offset_frames": self.config.listen_config.delay, "frame_rate": self.config.frame_rate}
        rows = [place_words(info["user_words"], self.tokenizer, n, **due) for info, n in zip(infos, lengths, strict=True)]
        rows = [torch.tensor(row) for row in rows]
        if self.listen is None:
            return {"user_text": [row.int() for row in rows]}
        tokens, embeds = self.listen_through(user, nn.utils.rnn.pad_sequence(rows, batch_first=True).to(user.device))
        return {"user_text": list(tokens.int().cpu()), "heard": list(embeds.half().cpu())}

    def listen_through(self, user: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the listen head makes of `user` [B, N] -> tokens [B, T], embeddings [B, T, D].

        Frame by frame it would feed back each token that it heard. Here whole clips are heard PASSES times, each time with the tokens
        of the pass before (at first the script's, `tokens` [B, T]): close to the same, and several times as fast.
        """
        listen, embeds, mel = self.listen, Tensor(), self.strangers(user)
        with torch.autocast(user.device.type, torch.bfloat16, enabled=half_is_fast(user.device.type)):
            sound = listen.encode(mel)
            for _ in range(PASSES):
                out = listen.attend(sound, F.embedding(F.pad(tokens[:, :-1], (1, 0)), self.table))
                tokens, embeds = greedy_text(out, self.table), out.embeds
        return tokens, embeds

    def strangers(self, user: Tensor) -> Tensor:
        """Log-mel of `user` [B, N], most of them through other vocal tracts and noise: so that it errs as it does with strangers,
        and the backbone learns to answer what was heard not quite.
        """
        noisy = augment_audio(user, self.bank, self.config.sampling_rate)
        user = torch.where(torch.rand(len(user), 1, device=user.device) < 0.5, noisy, user)
        mel = self.listen.mel(user)
        stretch = torch.exp(uniform(len(mel), -0.15, 0.15, mel.device, chance=0.6))
        return warp_mel(mel, torch.ones(len(mel), device=mel.device), mel.shape[2], stretch, self.config.sampling_rate / 2)

    @torch.inference_mode()
    def shard(self, path: Path, speeds: np.random.Generator | None = None) -> tuple[dict[str, Tensor], list[dict]]:
        """Frames of all dialogues of a shard, concatenated, with offsets; and their descriptions.

        Args:
            speeds: draws a speed for each dialogue, at which all its sound is played; None: as it is.
        """
        infos = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        size = self.config.frame_size
        sound = Shard(path, self.config.sampling_rate)
        users, models = ([sound.read(i, channel=channel) for i in range(len(infos))] for channel in (USER, MODEL))
        voices = [sound.read(i, name="reference") for i in range(len(infos))]
        if speeds is not None:
            drawn = np.exp(speeds.uniform(*np.log(SPEEDS), len(infos)))
            infos = [timed(info, speed) for info, speed in zip(infos, drawn, strict=True)]
            users, models, voices = ([played(clip, speed) for clip, speed in zip(clips, drawn, strict=True)]
                                     for clips in (users, models, voices))
        lengths = [math.ceil(len(clip) / size) for clip in users]
        user = pad_frames(users, size).to(self.table.device)
        heard = self.heard(infos, user, lengths)
        with torch.autocast(user.device.type, torch.bfloat16, enabled=half_is_fast(user.device.type)):
            latents = self.codec(pad_frames(models, size).to(user.device)).cpu()
        voice_lengths = [len(v) // size for v in voices]
        voice = self.codec(pad_frames(voices, size).to(user.device)).cpu()
        own = [torch.tensor(own_stream(i, self.tokenizer, n, self.config)) for i, n in zip(infos, lengths, strict=True)]

        def joined(rows: Tensor | list[Tensor], sizes: list[int]) -> Tensor:
            return torch.cat([row[:n] for row, n in zip(rows, sizes, strict=True)])

        return {
            **{name: joined(rows, lengths) for name, rows in heard.items()},
            "latents": joined(latents, lengths).half(),
            "own_text": torch.cat(own).int(),
            "voice": joined(voice, voice_lengths).half(),
            "offsets": torch.tensor([0, *lengths]).cumsum(0),
            "voice_offsets": torch.tensor([0, *voice_lengths]).cumsum(0),
        }, infos


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data", type=Path, required=True, help="folder of audio shards (python -m michiai.data)")
    p.add_argument("--codec", required=True, help="weights with codec.*")
    p.add_argument("--listen", help="weights with listen.*")
    p.add_argument("--table", required=True, help="weights with backbone.*: the frozen embedding table")
    p.add_argument("--tokenizer", required=True)
    add_config(p)
    p.add_argument("--out", type=Path, required=True, help="folder for the frames")
    p.add_argument("--copies", type=int, default=0, metavar="N",
                   help="every clip N times more, at other speeds: more voices (default: %(default)s)")
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    config = read_config(args.config, tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    preparer = Preparer(config, tokenizer, args.codec, args.listen, args.table).to(device)
    args.out.mkdir(parents=True, exist_ok=True)
    shards = [(path, copy) for path in sorted(args.data.glob("*.safetensors")) for copy in range(args.copies + 1)]
    for path, copy in tqdm(shards, desc="frames", unit="shard"):
        target = args.out / (f"{path.stem}-{copy}.safetensors" if copy else path.name)
        if target.exists():
            continue
        seed = zlib.crc32(target.name.encode())
        torch.manual_seed(seed)
        tensors, infos = preparer.shard(path, np.random.default_rng(seed) if copy else None)
        target.with_suffix(".jsonl").write_text("".join(json.dumps(i) + "\n" for i in infos))
        save_tensors(target, tensors)


if __name__ == "__main__":
    main()
