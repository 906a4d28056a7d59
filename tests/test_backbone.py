"""The backbone: the text LLM unchanged, and a conversation's memory around it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from michiai.backbone_michiai import Backbone, newest_words
from michiai.streaming_michiai import StreamState

from helpers import tiny_config

WINDOW = 30


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(1)
    made = Backbone(tiny_config(60)).eval()
    for p in made.parameters():
        p.data.normal_(0, 0.3)
    return made


def in_chunks(
    backbone: Backbone, x: torch.Tensor, sizes: list[int], state: StreamState, prompt: int = 0
) -> torch.Tensor:
    """Hidden states of `x` fed in chunks, the first `prompt` positions as a prompt."""
    pieces = [backbone(x[:, :prompt], state, prompt=True)] if prompt else []
    pieces += [backbone(piece, state) for piece in x[:, prompt:].split(sizes, dim=1)]
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("prompt", [0, 1, 40])
@pytest.mark.parametrize("sizes", [[1] * 30, [30], [7, 1, 22], [29, 1]])
@torch.inference_mode()
def test_streaming_is_offline_within_the_window(backbone: Backbone, prompt: int, sizes: list[int]) -> None:
    x = torch.randn(2, prompt + sum(sizes), 32)
    assert torch.allclose(in_chunks(backbone, x, sizes, StreamState(), prompt), backbone(x), atol=1e-5)


@torch.inference_mode()
def test_past_the_window_memory_is_constant_and_old_frames_are_forgotten(backbone: Backbone) -> None:
    x = torch.randn(1, 130, 32)
    other = x.clone()
    other[:, 8:40] = torch.randn(
        1, 32, 32
    )  # frames only; the last of them leaves each layer's window in time
    ends, sizes = [], set()
    for row in (x, other):
        state = StreamState()
        out = [backbone(row[:, :8], state, prompt=True)]
        for piece in row[:, 8:].split(1, dim=1):
            out.append(backbone(piece, state))
            sizes.add(tuple(sorted((k, tuple(v.shape)) for k, v in state.items())))
        ends.append(torch.cat(out, 1)[:, -1])
    assert len(sizes) == 1
    assert torch.allclose(ends[0], ends[1], atol=1e-5)


@torch.inference_mode()
def test_the_prompt_is_never_forgotten(backbone: Backbone) -> None:
    """Past the window, each prompt position still matters, the first one included."""
    x = torch.randn(1, 8 + 3 * WINDOW, 32)
    end = in_chunks(backbone, x, [1] * 3 * WINDOW, StreamState(), 8)[:, -1]
    for changed in (0, 7):
        other = x.clone()
        other[:, changed] += 1
        assert not torch.allclose(
            in_chunks(backbone, other, [1] * 3 * WINDOW, StreamState(), 8)[:, -1], end, atol=1e-3
        )


@torch.inference_mode()
def test_past_the_window_equals_a_sequence_without_the_forgotten(backbone: Backbone) -> None:
    """One layer: what is left is exactly the prompt followed by the newest frames."""
    one = Backbone(
        tiny_config(60, text_config={**tiny_config(60).text_config.to_dict(), "num_hidden_layers": 1})
    ).eval()
    x = torch.randn(1, 5 + 70, 32)
    end = in_chunks(one, x, [1] * 70, StreamState(), 5)[:, -1]
    left = torch.cat([x[:, :5], x[:, -(WINDOW + 1) :]], dim=1)
    assert torch.allclose(one(left)[:, -1], end, atol=1e-5)


@torch.inference_mode()
def test_injected_text_stands_between_two_frames(backbone: Backbone) -> None:
    frames, text = torch.randn(1, 12, 32), torch.tensor([[5, 9, 11]])
    state = StreamState()
    first = in_chunks(backbone, frames[:, :6], [1] * 6, state)
    backbone(backbone.embed_text(text), state)
    last = in_chunks(backbone, frames[:, 6:], [1] * 6, state)
    whole = backbone(torch.cat([frames[:, :6], backbone.embed_text(text), frames[:, 6:]], dim=1))
    assert torch.allclose(torch.cat([first, last], 1), torch.cat([whole[:, :6], whole[:, 9:]], 1), atol=1e-5)


@torch.inference_mode()
def test_fork_and_reset_of_a_row(backbone: Backbone) -> None:
    x, y = torch.randn(2, 20, 32), torch.randn(2, 10, 32)
    state = StreamState()
    in_chunks(backbone, x, [1] * 15, state, 5)
    twin = state.fork()
    first = in_chunks(backbone, y, [4, 6], state)
    in_chunks(backbone, y, [4, 6], state)
    assert torch.equal(in_chunks(backbone, y, [4, 6], twin), first)
    state.reset(torch.tensor([False, True]))
    assert torch.allclose(in_chunks(backbone, y, [10], state)[1], backbone(y)[1], atol=1e-5)


def test_an_absent_stream_adds_nothing(backbone: Backbone) -> None:
    zero = torch.zeros(1, 3, dtype=torch.long)
    heard, latents = torch.randn(1, 3, 16), torch.randn(1, 3, 6)
    x = backbone.embed_frames(heard, zero, latents, zero)
    assert torch.equal(x, backbone.listen_proj(heard) + backbone.latent_proj(latents))
    own = torch.tensor([[0, 4, 0]])
    added = backbone.embed_frames(heard, zero, latents, own) - x
    word = backbone.embed_text(torch.tensor([4])) + backbone.since[:2]  # it is held, and ages
    assert torch.allclose(added[0], torch.cat([torch.zeros_like(word[:1]), word]), atol=1e-6)


def test_frames_hold_the_newest_word_and_its_age() -> None:
    user = torch.tensor([[0, 7, 0, 0, 8, 0, 0]])
    own = torch.tensor([[0, 0, 0, 3, 4, 0, 0]])
    words, since = newest_words(user, own)
    assert words.tolist() == [[0, -7, -7, 3, 4, 4, 4]]
    assert since.tolist() == [[1, 0, 1, 0, 0, 1, 2]]
    for cut in range(1, 7):  # the same in two pieces
        first = newest_words(user[:, :cut], own[:, :cut])
        past = torch.stack([first[0][:, -1], first[1][:, -1]], 1)
        second = newest_words(user[:, cut:], own[:, cut:], past)
        assert torch.equal(torch.cat([first[0], second[0]], 1), words)
        assert torch.equal(torch.cat([first[1], second[1]], 1), since)
    frame = torch.tensor([[True, True, False, True, True, True, False]])  # what is no frame takes no time
    assert newest_words(user, own, frame=frame)[1].tolist() == [[1, 0, 0, 0, 0, 1, 1]]


@pytest.fixture(scope="module")
def llm(tmp_path_factory, tokenizer) -> Path:
    """A random text LLM of somebody else: another shape, its own tokenizer without any of our tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE())
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    own.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog and the train leaves at nine"] * 9, trainer
    )
    out = tmp_path_factory.mktemp("llm")
    PreTrainedTokenizerFast(tokenizer_object=own, eos_token="<|endoftext|>").save_pretrained(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=40,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=5,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(out)
    return out


def test_warm_start_computes_what_the_text_llm_computes(llm: Path, tmp_path: Path) -> None:
    from assemble import write_folder
    from warm_start import warm_start

    made, tokenizer = warm_start(llm)
    write_folder(made, tokenizer, tmp_path, torch.float32)
    model, info = AutoModel.from_pretrained(tmp_path, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    source = AutoModelForCausalLM.from_pretrained(llm)
    tokens = torch.tensor([tokenizer("the lazy train leaves at nine")["input_ids"]])
    assert tokens.max() < 300
    with torch.inference_mode():
        wanted = source(tokens).logits
        logits = model.backbone.text_logits(model.backbone(model.backbone.embed_text(tokens)))
        assert torch.allclose(logits[..., :300], wanted, atol=1e-5)
        state = StreamState()
        model.prompt(state, tokens[:, :4], torch.zeros(1, 0, model.config.latent_dim))
        streamed = torch.cat(
            [model.backbone(model.backbone.embed_text(t), state) for t in tokens[:, 4:].split(1, 1)], 1
        )
        assert torch.allclose(model.backbone.text_logits(streamed)[..., :300], wanted[:, 4:], atol=1e-5)
    said = source.generate(tokens, max_new_tokens=6, do_sample=False)
    assert torch.equal(model.generate(tokens, max_new_tokens=6, do_sample=False), said)


def test_warm_start_adds_the_tokens_of_frames(llm: Path) -> None:
    from warm_start import warm_start

    model, tokenizer = warm_start(llm)
    ids = model.config.special_tokens
    assert ids["<pad>"] == 0 and len(set(ids.values())) == len(ids)
    assert all(tokenizer.convert_tokens_to_ids(name) == i for name, i in ids.items() if name != "<pad>")
    assert model.backbone.table.shape == (309, 40)
    with model.session(instructions="Be brief.", context="The train leaves at nine.") as session:
        frames = session.push(torch.randn(16_000) * 0.1)
    assert len(frames) == 12 and all(torch.isfinite(frame.audio).all() for frame in frames)


def test_warm_start_refuses_what_is_not_of_the_llama_kind(tmp_path: Path, tokenizer) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from warm_start import warm_start

    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="GPT2LMHeadModel.*expected an LLM of the Llama kind"):
        warm_start(tmp_path)
