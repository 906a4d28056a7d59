"""The whole model: it streams as it computes offline, rows and models do not meet, and guidance is what it says."""

import pytest
import torch

from michiai.lanes_michiai import SOUND, TEXT, kind_of, newest_text, text_lane
from michiai.streaming_michiai import StreamState

from helpers import speech, tiny_model

FRAME = 1280


@torch.inference_mode()
def test_the_whole_model_streams_as_it_computes_offline(model) -> None:
    """Frame by frame through a session's step == whole sequences through each part, on the same tokens and latents."""
    audio = torch.from_numpy(speech(2.4))[None, : 29 * FRAME]
    state, steps, prompt = StreamState(), [], torch.tensor([[5, 20, 30, 40]])
    voice = torch.randn(1, 7, 6)
    model.prompt(state, prompt, voice)
    noise = torch.randn(29, 1, 6)
    for piece, eps in zip(audio.split(FRAME, dim=1), noise, strict=True):
        steps.append(model.step(piece, state, eps))
    own, user = (torch.stack([getattr(s, name) for s in steps], 1) for name in ("own_text", "user_text"))
    latents, logits = (
        torch.stack([s.latent for s in steps], 1),
        torch.stack([s.text_logits for s in steps], 1),
    )

    def before(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)

    heard = model.listen(audio, torch.nn.functional.embedding(before(user), model.backbone.table))
    assert close(heard.turn_logits.sigmoid(), torch.stack([s.turn_probability for s in steps], 1))
    x = [model.backbone.embed_text(prompt), model.backbone.embed_latents(voice)]
    frames = model.backbone.embed_frames(heard.embeds, user, before(latents), before(own))
    lane = text_lane(user, before(own), model.config.special_tokens)
    kind, known = [TEXT] * 4 + [SOUND] * 7, []
    for words, frame in zip(lane[0], frames[0], strict=True):
        words = words[words != 0]
        known += [*model.backbone.embed_text(words), frame]
        kind += [*kind_of(words).tolist(), SOUND]
    kind = torch.tensor([kind])
    hidden = model.backbone(torch.cat([*x, torch.stack(known)[None]], dim=1), kind)
    frame = (kind == SOUND)[0].nonzero()[7:, 0]
    assert len(frame) == 29 and (lane != 0).sum() > 5
    assert close(model.backbone.frame_logits(hidden[:, frame], newest_text(hidden, kind)[:, frame]), logits)
    hidden = hidden[:, frame]
    assert close(model.speak_head(hidden, noise[:, 0][None]), latents)
    assert close(model.vocoder(latents), torch.cat([s.audio for s in steps], 1))

    state, steps = StreamState(), []  # without a prompt: as `forward` computes
    for piece, eps in zip(audio.split(FRAME, dim=1), noise, strict=True):
        steps.append(model.step(piece, state, eps))
    own, user = (torch.stack([getattr(s, name) for s in steps], 1) for name in ("own_text", "user_text"))
    latents = torch.stack([s.latent for s in steps], 1)
    heard = model.listen(audio, torch.nn.functional.embedding(before(user), model.backbone.table))
    assert close(model(heard.embeds, user, before(latents), before(own))[0], torch.stack([s.text_logits for s in steps], 1))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and float((a - b).abs().max()) <= 1e-4 * max(1.0, float(b.abs().max()))


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[1] * 25, [25], [3, 10, 1, 11]])
def test_parts_stream_as_they_compute_offline(model, sizes: list[int]) -> None:
    audio, latents = torch.from_numpy(speech(2.0))[None], torch.randn(1, 25, 6)
    state = StreamState()
    codec = [model.codec(a, state) for a in audio.split([s * FRAME for s in sizes], 1)]
    sound = [model.vocoder(z, state) for z in latents.split(sizes, 1)]
    assert close(torch.cat(codec, 1), model.codec(audio)) and close(
        torch.cat(sound, 1), model.vocoder(latents)
    )


@torch.inference_mode()
def test_a_batch_is_as_its_rows_alone(model) -> None:
    audio, noise = torch.randn(3, 6 * FRAME) * 0.1, torch.randn(6, 3, 6)
    states = [StreamState() for _ in range(3)]
    together = StreamState()
    for t in range(6):
        piece = audio[:, t * FRAME : (t + 1) * FRAME]
        out = model.step(piece, together, noise[t])
        for row, state in enumerate(states):
            alone = model.step(piece[row : row + 1], state, noise[t, row : row + 1])
            assert close(alone.audio[0], out.audio[row]) and alone.own_text[0] == out.own_text[row]


def test_a_model_without_rows_in_common_is_independent() -> None:
    """Two models in one process share nothing."""
    a, b = tiny_model(seed=1), tiny_model(seed=2)
    audio, noise = torch.randn(1, FRAME) * 0.1, torch.randn(1, 6)
    alone = a.step(audio, StreamState(), noise).audio
    b.step(audio, StreamState(), noise)
    assert torch.equal(a.step(audio, StreamState(), noise).audio, alone)


@torch.inference_mode()
def test_guidance_goes_away_from_the_latents_of_no_voice(model) -> None:
    """The latents of a guided conversation == those with and without the voice, told the same past, put together."""
    rows, frames, weight = 2, 12, 0.7
    audio, noise = 0.1 * torch.randn(frames, rows, FRAME), torch.randn(frames, rows, 6)
    prompt, voice = torch.tensor([[5, 20, 30, 40]] * rows), torch.randn(rows, 7, 6)
    guided, voiced, bare = StreamState(), StreamState(), StreamState()
    model.prompt(guided, prompt, voice, weight)
    model.prompt(voiced, prompt, voice)
    model.prompt(bare, prompt, torch.zeros_like(voice))
    model.inject(guided, prompt)
    for state in (voiced, bare):
        model.inject(state, prompt)
    for i in range(frames):
        out = model.step(audio[i], guided, noise[i])
        plain, without = (model.step(audio[i], state, noise[i]) for state in (voiced, bare))
        assert close(out.latent, plain.latent + weight * (plain.latent - without.latent))
        assert close(out.text_logits, plain.text_logits) and not close(plain.latent, without.latent)
        for state in (voiced, bare):
            state["latent"], state["own_text"], state["user_text"] = out.latent[:, None], out.own_text[:, None], guided["user_text"]
    first = guided.select(torch.tensor([0]))
    assert close(model.step(audio[0][:1], first, noise[0][:1]).latent, model.step(audio[0], guided, noise[0]).latent[:1])


def test_a_word_may_be_added(tokenizer, tmp_path) -> None:
    """As `resize_token_embeddings` of any text model; the listen head hears by the same table."""
    model = tiny_model(len(tokenizer)).eval()
    model.tokenizer = tokenizer
    assert model.get_input_embeddings().weight is model.backbone.table is model.get_output_embeddings().weight
    before = model.config.text_config.vocab_size
    model.resize_token_embeddings(before + 3)
    assert model.get_input_embeddings().weight is model.backbone.table is model.get_output_embeddings().weight
    with model.session() as session:
        frames = session.push(speech(0.4), 16_000)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert len(frames) == 5 and loaded.config.text_config.vocab_size == before + 3 and len(loaded.backbone.table) == before + 3
