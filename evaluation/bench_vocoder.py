"""bench vocoder: cost per second of audio, streaming, beside Mimi's decoder and HiFi-GAN V1 offline. bench
load: time and memory.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .load import ROOT, load_model, random_model
from .report import table
from .speed import threads

PRESET = ROOT / "configs" / "530m"


def milliseconds(work: Callable[[], Any], seconds_of_audio: float, repeats: int) -> float:
    """Median milliseconds per second of audio, after one run to warm up."""
    spent = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            began = time.perf_counter()
            work()
            spent.append(time.perf_counter() - began)
    return sorted(spent[1:])[repeats // 2] * 1e3 / seconds_of_audio


def ours(model: Any, repeats: int) -> dict[str, float]:
    """Our vocoder frame by frame, and a second at once."""
    from michiai.streaming_michiai import StreamState

    state, frame = StreamState(), torch.randn(1, 1, model.config.latent_dim)
    second = torch.randn(1, 25, model.config.latent_dim)  # two seconds
    return {
        "streaming": milliseconds(
            lambda: model.vocoder(frame, state), 1 / model.config.frame_rate, 12 * repeats
        ),
        "offline": milliseconds(lambda: model.vocoder(second), 2.0, repeats),
    }


def mimi_decoder(repeats: int) -> dict[str, float]:
    """Mimi's decoder (8 codebooks), frame by frame with its transformer's cache, and two seconds at once."""
    from transformers import MimiConfig, MimiModel

    mimi, past = MimiModel(MimiConfig(num_quantizers=8)).eval(), [None]
    codes = torch.randint(0, 2048, (1, 8, 25))

    def frame() -> None:
        out = mimi.decode(codes[:, :, :1], decoder_past_key_values=past[0], return_dict=True)
        past[0] = out.decoder_past_key_values

    return {
        "streaming": milliseconds(frame, 0.08, 6 * repeats),
        "offline": milliseconds(lambda: mimi.decode(codes), 2.0, repeats),
    }


def hifi_gan_v1(repeats: int) -> dict[str, float]:
    """HiFi-GAN V1 (22.05 kHz, 80 mels, upsampling 8 x 8 x 2 x 2), two seconds at once."""
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig(
        model_in_dim=80,
        sampling_rate=22_050,
        upsample_initial_channel=512,
        upsample_rates=[8, 8, 2, 2],
        upsample_kernel_sizes=[16, 16, 4, 4],
    )
    vocoder, mels = SpeechT5HifiGan(config).eval(), torch.randn(172, 80)
    return {"offline": milliseconds(lambda: vocoder(mels), 172 * 256 / 22_050, repeats)}


def run(model_path: str, quick: bool, n_threads: int = 1) -> dict:
    """-> {"vocoders": {name: {"streaming": ms per s of audio, "offline": ...}}}."""
    repeats, rows = (1 if quick else 5), {}
    with threads(n_threads):
        nano = load_model(model_path)
        rows["nano, eager"] = ours(nano, repeats)
        rows["nano, cpu-int8"] = ours(nano.optimize("cpu-int8"), repeats)
        if not quick:
            big = random_model(PRESET)
            rows["530M, eager"] = ours(big, repeats)
            rows["530M, cpu-int8"] = ours(big.optimize("cpu-int8"), repeats)
            rows["Mimi decoder"] = mimi_decoder(repeats)
            rows["HiFi-GAN V1"] = hifi_gan_v1(repeats)
    print(f"milliseconds per second of audio, {n_threads} thread(s)")
    print(
        table(
            ["vocoder", "streaming", "offline"],
            [
                [name, *(f"{r[k]:.1f}" if k in r else "-" for k in ("streaming", "offline"))]
                for name, r in rows.items()
            ],
        )
    )
    result: dict = {"threads": n_threads, "vocoders": rows}
    if "Mimi decoder" in rows:
        mimi, gan = rows["Mimi decoder"], rows["HiFi-GAN V1"]
        result["mimi_over_530m"] = {k: mimi[k] / rows["530M, cpu-int8"][k] for k in ("streaming", "offline")}
        result["v1_over_530m"] = gan["offline"] / rows["530M, cpu-int8"]["offline"]
    return result


LOADER = """
import json, sys, time
import torch, transformers, michiai.modeling_michiai as modeling
torch.set_num_threads(1)
from michiai.evaluation.speed import Conversation
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before, began = resident(), time.perf_counter()
model = modeling.MichiAIModel.from_pretrained(sys.argv[1])
if len(sys.argv) > 3:
    model.optimize(sys.argv[3])
loaded = time.perf_counter() - began
conversation = Conversation(model, int(sys.argv[2]))
conversation.steps(5, warm_up=3)
print(json.dumps({"seconds": loaded, "imports_mb": before, "resident_mb": resident()}))
"""


def fresh(folder: str, context: int, *form: str) -> dict:
    """Load in a process of its own."""
    command = [sys.executable, "-c", LOADER, folder, str(context), *form]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(
            f"loading {folder} failed: {done.stderr.strip().splitlines()[-1]}; expected a model's folder"
        )
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_load(model_path: str, quick: bool) -> dict:
    """Seconds of `from_pretrained` (imports aside) and resident megabytes after a prompt and some frames."""
    rows = {"nano": fresh(model_path, 0), "nano, cpu-int8": fresh(model_path, 0, "cpu-int8")}
    if not quick:
        with tempfile.TemporaryDirectory() as folder:
            random_model(PRESET).optimize("cpu-int8").save_pretrained(Path(folder))
            rows["530M, cpu-int8, saved"] = fresh(folder, 1000)
    print(
        table(
            ["loaded", "seconds", "imports MB", "resident MB"],
            [
                [name, f"{r['seconds']:.2f}", f"{r['imports_mb']:.0f}", f"{r['resident_mb']:.0f}"]
                for name, r in rows.items()
            ],
        )
    )
    return {"load": rows}
