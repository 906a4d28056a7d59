"""bench peers: other speech models of transformers with random weights, in the same run and on the same
threads.

Every figure is milliseconds of compute per second of audio. Two lengths are measured and subtracted, so that
what happens once (a prompt, an import) does not count.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from .bench_step import CONTEXT, PRESET
from .load import load_model, random_model
from .report import table
from .speed import Conversation, threads

FRAME = 0.08  # seconds: all of these work at 12.5 Hz
MOSHI_LAYERS, BUILT = 32, (1, 3)


def build(make: Callable[[], Any]) -> Any:
    """A model in bfloat16 whose values are all alike: random draws by the billion would take minutes."""
    with torch.device("meta"):
        model = make().to(torch.bfloat16)
    model = model.to_empty(device="cpu").eval()
    for value in (*model.parameters(), *model.buffers()):
        value.data.fill_(0.01 if value.is_floating_point() else 0)
    return model


def per_step(step: Callable[[], Any], repeats: int, warm_up: int = 2) -> float:
    """Median seconds of a step."""
    spent = []
    with torch.inference_mode():
        for _ in range(warm_up + repeats):
            began = time.perf_counter()
            step()
            spent.append(time.perf_counter() - began)
    return sorted(spent[warm_up:])[repeats // 2]


def pocket_tts(repeats: int) -> dict:
    """kyutai's pocket-tts: text to speech, one flow step; its waveform decoder included."""
    from transformers import PocketTTSConfig, PocketTTSForConditionalGeneration

    config = PocketTTSConfig()
    model = PocketTTSForConditionalGeneration(config).eval()
    ids = torch.tensor([[5, 6, 7, 8, config.audio_bos_token_id]])

    def generate(frames: int) -> float:
        began = time.perf_counter()
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=frames,
            num_flow_steps=1,
            do_sample=True,
            temperature=0.7,
            frames_after_eos=1,
            eos_threshold=1e9,
            return_dict_in_generate=True,
        )
        return time.perf_counter() - began

    generate(4)
    latents = (generate(10 + 10 * repeats) - generate(10)) / (10 * repeats)
    mimi = mimi_frame(repeats)["decode"]  # its decoder is a Mimi decoder without codebooks
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_frame": latents + mimi,
        "note": "latents measured; its decoder counted as Mimi's",
    }


def mimi_frame(repeats: int) -> dict[str, float]:
    """Seconds per frame of Mimi (8 codebooks) with its transformers' caches."""
    from transformers import MimiConfig, MimiModel

    mimi, sound, past = MimiModel(MimiConfig(num_quantizers=8)).eval(), torch.randn(1, 1, 1920), [None]
    codes = torch.randint(0, 2048, (1, 8, 1))

    def decode() -> None:
        past[0] = mimi.decode(
            codes, decoder_past_key_values=past[0], return_dict=True
        ).decoder_past_key_values

    return {
        "decode": per_step(decode, 4 * repeats),
        "encode": per_step(lambda: mimi.encode(sound), 4 * repeats),
    }


def moshi(repeats: int) -> dict:
    """Moshi 7B in bfloat16: some layers are built, the rest extrapolated; depth decoder and Mimi whole."""
    from transformers import MoshiConfig, MoshiForCausalLM
    from transformers.models.moshi.modeling_moshi import MoshiDepthDecoder

    seconds, parameters, one = {}, {}, torch.zeros(1, 1, dtype=torch.long)
    for layers in BUILT:
        model = build(lambda n=layers: MoshiForCausalLM(MoshiConfig(num_hidden_layers=n)))
        past = [None]

        def step(model: Any = model, past: list = past) -> None:
            past[0] = model(input_ids=one, past_key_values=past[0], use_cache=True).past_key_values

        seconds[layers] = per_step(step, 4 * repeats)
        parameters[layers] = sum(p.numel() for p in model.parameters())
    few, many = BUILT
    layer = (seconds[many] - seconds[few]) / (many - few)
    backbone = seconds[few] + layer * (MOSHI_LAYERS - few)
    config = MoshiConfig()
    depth = build(lambda: MoshiDepthDecoder(config.depth_decoder_config))
    hidden = torch.randn(1, 1, config.hidden_size, dtype=torch.bfloat16)

    def codebooks() -> None:
        past = None
        for _ in range(config.num_codebooks):
            past = depth(
                input_ids=one, last_hidden_state=hidden, past_key_values=past, use_cache=True
            ).past_key_values

    depth_seconds, mimi = per_step(codebooks, 2 * repeats), mimi_frame(repeats)
    size = parameters[few] + (parameters[many] - parameters[few]) / (many - few) * (MOSHI_LAYERS - few)
    return {
        "parameters": size + sum(p.numel() for p in depth.parameters()),
        "seconds_per_frame": backbone + depth_seconds + mimi["encode"] + mimi["decode"],
        "backbone": backbone,
        "depth": depth_seconds,
        "mimi_encode": mimi["encode"],
        "mimi_decode": mimi["decode"],
        "note": f"layers {few} and {many} built, {MOSHI_LAYERS} extrapolated",
    }


def csm(repeats: int) -> dict:
    """Sesame CSM 1B in bfloat16: backbone of 16 layers extrapolated from runs with 1 and 3, depth decoder whole, Mimi's
    decoder.
    """
    from transformers import CsmBackboneModel, CsmConfig, CsmDepthDecoderForCausalLM

    seconds, config = {}, CsmConfig()
    x = torch.randn(1, 1, config.hidden_size, dtype=torch.bfloat16)
    for layers in BUILT:
        model, past = build(lambda n=layers: CsmBackboneModel(CsmConfig(num_hidden_layers=n))), [None]

        def step(model: Any = model, past: list = past) -> None:
            past[0] = model(inputs_embeds=x, past_key_values=past[0], use_cache=True).past_key_values

        seconds[layers] = per_step(step, 4 * repeats)
    few, many = BUILT
    backbone = seconds[few] + (seconds[many] - seconds[few]) / (many - few) * (config.num_hidden_layers - few)
    depth = build(lambda: CsmDepthDecoderForCausalLM(config.depth_decoder_config))
    ids = torch.zeros(1, 1, dtype=torch.long)

    def codebooks() -> None:
        depth.generate(
            input_ids=ids,
            backbone_last_hidden_state=x[:, 0],
            max_new_tokens=config.num_codebooks - 1,
            min_new_tokens=config.num_codebooks - 1,
            do_sample=False,
        )

    depth_seconds = per_step(codebooks, max(1, repeats // 2), 1)
    return {
        "parameters": None,
        "seconds_per_frame": backbone + depth_seconds + mimi_frame(repeats)["decode"],
        "backbone": backbone,
        "depth": depth_seconds,
        "note": f"layers {few} and {many} built, the rest extrapolated",
    }


def ours(model: Any, context: int, frames: int) -> dict:
    """A whole duplex frame."""
    count = sum(p.numel() for p in model.parameters())
    model.optimize("cpu-int8")
    return {
        "parameters": count,
        "seconds_per_frame": float(Conversation(model, context).steps(frames).mean()),  # with words and without
    }


def run(model_path: str, quick: bool, n_threads: int = 2) -> dict:
    """-> {"peers": {name: {"ms_per_second": ..., "ratio": to the 530M}}}."""
    repeats, rows, n_threads = (1 if quick else 3), {}, 1 if quick else n_threads
    with threads(n_threads):
        rows["MichiAI nano, int8"] = ours(load_model(model_path), 0, 10 if quick else 100)
        if quick:
            rows["Mimi"] = {"parameters": None, "seconds_per_frame": sum(mimi_frame(1).values())}
        else:
            rows["MichiAI 530M, int8"] = ours(random_model(PRESET), CONTEXT, 60)
            rows |= {"PocketTTS": pocket_tts(repeats), "Moshi": moshi(repeats), "CSM": csm(repeats)}
    base = rows.get("MichiAI 530M, int8", rows["MichiAI nano, int8"])["seconds_per_frame"]
    for row in rows.values():
        row["ms_per_second"], row["ratio"] = (
            row["seconds_per_frame"] / FRAME * 1e3,
            row["seconds_per_frame"] / base,
        )
    print(f"{n_threads} thread(s); ratio: compute per second of audio over our {'nano' if quick else '530M'}")
    print(
        table(
            ["model", "parameters", "ms per s of audio", "ratio", "note"],
            [
                [
                    name,
                    f"{r['parameters'] / 1e6:.0f} M" if r["parameters"] else "-",
                    f"{r['ms_per_second']:.0f}",
                    f"{r['ratio']:.2f}",
                    r.get("note", ""),
                ]
                for name, r in rows.items()
            ],
        )
    )
    return {"threads": n_threads, "peers": rows}
