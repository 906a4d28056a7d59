"""The backbone: the text LLM unchanged, and a conversation's memory around it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from michiai.backbone_michiai import Backbone
from michiai.decode_michiai import Past, at_once, by_parts
from michiai.lanes_michiai import ASIDE, EMPTY, SOUND, TEXT, kind_of, newest_text, newest_words, next_text, text_lane
from michiai.streaming_michiai import StreamState

from helpers import tiny_config

WINDOW, TEXT_WINDOW = 30, 60
PROMPT = 40  # a voice of 10 positions after 30 of text


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(1)
    made = Backbone(tiny_config(60)).eval()
    for p in made.parameters():
        p.data.normal_(0, 0.3)
    return made


def kinds(prompt: int, frames: int, words: float = 0.3, rows: int = 1) -> torch.Tensor:
    """A prompt, then frames, each after a word or an empty position: [rows, prompt + 2 frames]."""
    made = torch.full((rows, prompt + 2 * frames), SOUND)
    made[:, : prompt * 3 // 4] = TEXT
    made[:, prompt::2] = kind_of((torch.rand(rows, frames) < words) * torch.where(torch.rand(rows, frames) < 0.2, -9, 9))
    return made


def in_chunks(
    backbone: Backbone, x: torch.Tensor, kind: torch.Tensor, sizes: list[int], state: StreamState, prompt: int = 0
) -> torch.Tensor:
    """Hidden states of `x` fed in chunks, the first `prompt` positions as a prompt."""
    pieces = [backbone(x[:, :prompt], kind[:, :prompt], state, prompt=True)] if prompt else []
    given = zip(x[:, prompt:].split(sizes, dim=1), kind[:, prompt:].split(sizes, dim=1), strict=True)
    return torch.cat([*pieces, *(backbone(piece, kinds, state) for piece, kinds in given)], dim=1)


@pytest.mark.parametrize("prompt", [0, 1, PROMPT])
@pytest.mark.parametrize("sizes", [[2] * 20, [40], [7, 1, 32], [1] * 40])
@torch.inference_mode()
def test_streaming_is_transformers_forward(backbone: Backbone, prompt: int, sizes: list[int]) -> None:
    kind = kinds(prompt, 20, rows=2)
    x, state = torch.randn(*kind.shape, 32), StreamState()
    hidden, whole = in_chunks(backbone, x, kind, sizes, state, prompt), backbone(x, kind)
    assert torch.allclose(hidden[kind != EMPTY], whole[kind != EMPTY], atol=1e-5)
    assert torch.allclose(state["backbone.text"], newest_text(whole, kind)[:, -1], atol=1e-5)


@torch.inference_mode()
def test_text_hears_nothing(backbone: Backbone) -> None:
    """The text lane computes what the LLM computes for the text alone, to the last bit of what frames bring."""
    kind = kinds(PROMPT, 20)
    x = torch.randn(*kind.shape, 32)
    text = (kind[0] == TEXT) | (kind[0] == ASIDE)
    alone = backbone.language_model.model(inputs_embeds=x[:, text]).last_hidden_state
    assert torch.allclose(backbone(x, kind)[:, text], alone, atol=1e-5)
    assert torch.allclose(in_chunks(backbone, x, kind, [2] * 20, StreamState(), PROMPT)[:, text], alone, atol=1e-5)


@torch.inference_mode()
def test_past_the_windows_memory_is_constant_and_the_old_is_forgotten(backbone: Backbone) -> None:
    kind = kinds(8, 220, words=0.9)
    x = torch.randn(*kind.shape, 32)
    other = x.clone()
    other[:, 8:60] = torch.randn(1, 52, 32)  # words and frames; the last of them leaves each layer's window in time
    ends, sizes = [], set()
    for row in (x, other):
        state = StreamState()
        out = [backbone(row[:, :8], kind[:, :8], state, prompt=True)]
        for piece, kinds_ in zip(row[:, 8:].split(2, dim=1), kind[:, 8:].split(2, dim=1), strict=True):
            out.append(backbone(piece, kinds_, state))
            sizes.add(tuple(sorted((k, tuple(v.shape)) for k, v in state.items())))
        ends.append(out[-1][:, -1])
    assert len(sizes) == 1
    assert torch.allclose(ends[0], ends[1], atol=1e-5)


@torch.inference_mode()
def test_the_prompt_is_never_forgotten(backbone: Backbone) -> None:
    """Past the windows, each prompt position still matters, the first one included."""
    kind = kinds(8, 3 * WINDOW, words=1.0)
    x, sizes = torch.randn(*kind.shape, 32), [2] * 3 * WINDOW
    end = in_chunks(backbone, x, kind, sizes, StreamState(), 8)[:, -1]
    for changed in (0, 7):
        other = x.clone()
        other[:, changed] += 1
        assert not torch.allclose(in_chunks(backbone, other, kind, sizes, StreamState(), 8)[:, -1], end, atol=1e-3)


@torch.inference_mode()
def test_past_the_windows_equals_a_sequence_without_the_forgotten() -> None:
    """One layer: what is left is exactly the prompt followed by the newest words and frames."""
    one = Backbone(
        tiny_config(60, text_config={**tiny_config(60).text_config.to_dict(), "num_hidden_layers": 1})
    ).eval()
    kind = kinds(8, 110, words=0.8)
    x = torch.randn(*kind.shape, 32)
    end = in_chunks(one, x, kind, [2] * 110, StreamState(), 8)[:, -1]
    kept = torch.zeros(kind.shape[1], dtype=torch.bool)
    kept[:8] = True
    sound, text = kind[0, 8:] == SOUND, (kind[0, 8:] == TEXT) | (kind[0, 8:] == ASIDE)
    for which, window in ((text, TEXT_WINDOW), (sound, WINDOW)):
        kept[8 + which.nonzero()[-window:, 0]] = True
    assert torch.allclose(one(x[:, kept], kind[:, kept])[:, -1], end, atol=1e-5)


@torch.inference_mode()
def test_injected_text_stands_between_two_frames(backbone: Backbone) -> None:
    kind, text = kinds(0, 12), torch.tensor([[5, 9, 11]])
    x, state = torch.randn(*kind.shape, 32), StreamState()
    first = in_chunks(backbone, x[:, :12], kind[:, :12], [2] * 6, state)
    backbone(backbone.embed_text(text), state=state)
    last = in_chunks(backbone, x[:, 12:], kind[:, 12:], [2] * 6, state)
    whole_kind = torch.cat([kind[:, :12], torch.full_like(text, TEXT), kind[:, 12:]], 1)
    whole = backbone(torch.cat([x[:, :12], backbone.embed_text(text), x[:, 12:]], dim=1), whole_kind)
    streamed, whole = torch.cat([first, last], 1), torch.cat([whole[:, :12], whole[:, 15:]], 1)
    assert torch.allclose(streamed[kind != EMPTY], whole[kind != EMPTY], atol=1e-5)


@torch.inference_mode()
def test_fork_join_and_reset_of_rows(backbone: Backbone) -> None:
    kind = kinds(8, 40, words=0.7, rows=2)
    x, state = torch.randn(*kind.shape, 32), StreamState()
    in_chunks(backbone, x[:, :48], kind[:, :48], [2] * 20, state, 8)
    twin = state.fork()
    first = in_chunks(backbone, x[:, 48:], kind[:, 48:], [2] * 20, state)
    assert torch.equal(in_chunks(backbone, x[:, 48:], kind[:, 48:], [2] * 20, twin), first)
    long, short = StreamState(), StreamState()  # rows of different age and prompt, joined
    in_chunks(backbone, x[:1, :48], kind[:1, :48], [2] * 20, long, 8)
    in_chunks(backbone, x[1:, :4], kind[1:, :4], [], short, 4)
    both = StreamState.join([long, short])
    alone = [in_chunks(backbone, x[i : i + 1, 48:], kind[i : i + 1, 48:], [2] * 20, row) for i, row in enumerate((long, short))]
    joined, sound = in_chunks(backbone, x[:, 48:], kind[:, 48:], [2] * 20, both), kind[:, 48:] != EMPTY
    assert torch.allclose(joined[sound], torch.cat(alone)[sound], atol=1e-5)
    both.reset(torch.tensor([True, False]))
    fresh = in_chunks(backbone, x[:, 48:68], kind[:, 48:68], [2] * 10, both)[:1]
    assert torch.allclose(fresh[sound[:1, :20]], backbone(x[:1, 48:68], kind[:1, 48:68])[sound[:1, :20]], atol=1e-5)


def test_words_enter_the_text_lane_in_order() -> None:
    special = tiny_config(60).special_tokens
    turn, done, user = (special[name] for name in ("<turn>", "<done>", "<user>"))
    heard = torch.tensor([[20, 0, 21, 22, 23, 0, 0, 0, 24, 0, 0, 0]])  # 22 and 23 come while one speaks oneself
    own = torch.tensor([[0, 0, 0, turn, 30, 31, done, 0, 0, 0, 0, 0]])  # of the frame before
    lane = text_lane(heard, own, special)
    assert [[token for token in new if token] for new in lane[0].tolist()] == [
        [], [20], [], [21, turn], [-22, 30], [-23, 31], [done, user], [], [], [24], [], []
    ]  # fmt: skip
    crowded = text_lane(torch.tensor([[0, 20, 21, 0, 0]]), torch.tensor([[turn, 30, done, 0, 0]]), special)
    assert crowded[0].tolist() == [[turn, 0], [30, 0], [-20, done], [user, 21], [0, 0]]
    again, state = [], StreamState()  # frame by frame
    for own_token, before in zip(own.T, torch.nn.functional.pad(heard[:, :-1], (1, 0)).T, strict=True):
        again.append(next_text(own_token, before, state, special)[0].tolist())
    assert again == lane[0].tolist()


@torch.inference_mode()
def test_what_is_said_is_what_the_text_llm_says(backbone: Backbone) -> None:
    """Given that a word is said, the gate and the frame leave the LLM's odds between words as they are."""
    frame, text = torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    said = backbone.frame_logits(frame, text)
    assert torch.allclose(said.exp().sum(-1), torch.ones(2, 3), atol=1e-5)
    assert torch.allclose(said[..., 0], backbone.gate_logits(frame, text).log_softmax(-1)[..., 0], atol=1e-5)
    wanted = backbone.text_logits(text)
    assert torch.allclose(said[..., 10:].log_softmax(-1), wanted[..., 10:].log_softmax(-1), atol=1e-4)


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
            [model.backbone(model.backbone.embed_text(t), state=state) for t in tokens[:, 4:].split(1, 1)], 1
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
    the, train = (tokenizer(text)["input_ids"] for text in ("the", " train"))
    assert tokenizer("the <turn> train <breath>")["input_ids"] == [*the, ids["<turn>"], *train, ids["<breath>"]]
    added, others = model.backbone.table[300:], model.backbone.table[:300]
    assert torch.pdist(added).min() > 0.5 * torch.pdist(others).median(), "marks that are one row cannot be told apart"
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


def test_both_ways_of_attending_to_two_memories_agree() -> None:
    torch.manual_seed(0)
    query, prompt, memory = torch.randn(2, 3, 2, 4, 16), torch.randn(3, 2, 2, 5, 16), torch.randn(3, 2, 2, 7, 16)
    seen, none = torch.rand(3, 4, 12) < 0.5, torch.empty(0)
    seen[0, 0, :5], seen[0, 0, 5] = False, True  # nothing of the prompt
    seen[1, 1, 5:], seen[1, 1, 0] = False, True  # nothing but it
    seen[..., 3, 6], seen[..., 2, 1] = True, True
    past = Past(prompt[:, None], memory[:, None], False, none, none, seen, none, none)
    mask, lean = past.sight(SimpleNamespace(num_key_value_groups=1))
    wanted = at_once(query, prompt, memory, mask, lean)
    torch.testing.assert_close(by_parts(query, prompt, memory, mask, lean), wanted, atol=1e-5, rtol=0)
    bare = (query[:, :1], prompt[:1, :, :, :0], memory[:1], mask[:1, ..., 5:], lean[:1])
    torch.testing.assert_close(by_parts(*bare), at_once(*bare), atol=1e-5, rtol=0)
