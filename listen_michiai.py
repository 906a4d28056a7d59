"""ListenHead: the user's audio -> what the backbone hears, frame by frame.

    log-mel (100 Hz) -> three causal halvings -> 12.5 Hz, + the text token heard last -> causal transformer
        -> embeds (for the backbone), text (a token or nothing, per frame), turn (has the user finished?)

The token of a word is due `config.listen_config.delay` frames after the word's end: it is wholly heard.

B batch, N samples, M mel frames, T frames, C channels, D listen width, W width of the LLM, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .codec_michiai import LogMel
from .configuration_michiai import MichiAIConfig
from .kernels_michiai import Int8Halvings
from .streaming_michiai import CausalTransformer, StreamState, name_modules

PAD_ID = 0  # "nothing new in this frame"
EXPECTED_SLOTS = 256  # pieces of expected words that a conversation remembers
EXPECTED_GAIN = 3.5  # nats by which such a piece gains on the others
FORESEEN_GAIN = 0.4  # of the LLM's log probability of a token
LEAST_FORESEEN = -12.0  # nats: no word is ruled out


@dataclass
class ListenOutput:
    """What was heard, per frame."""

    embeds: Tensor  # [B, T, D]
    text_hidden: Tensor  # [B, T, W]: its product with the LLM's embedding table scores the tokens
    emit_logits: Tensor  # [B, T]: > 0 where a token is due, < 0 where nothing is new
    turn_logits: Tensor  # [B, T]: > 0 where the user has finished


class HalfRate(nn.Module):
    """Causal convolution of width 4 and stride 2, written as one matrix product over pairs of frames."""

    path = ""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * channels_in, channels_out)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """[B, M, C] -> [B, M / 2, channels_out]."""
        batch, length, channels = x.shape
        pairs = x.reshape(batch, length // 2, 2 * channels)
        past = pairs.new_zeros(batch, 1, 2 * channels)
        if state is not None:
            past = state.get(self.path, past)
            state[self.path] = pairs[:, -1:].clone()  # a view would keep the whole chunk alive
        earlier = torch.cat([past.to(pairs.dtype), pairs[:, :-1]], dim=1)
        return self.linear(torch.cat([earlier, pairs], dim=-1))


class ResidualConv(nn.Module):
    """x + f(x), f a causal convolution of width 3 and a GELU MLP; keeps the rate."""

    path = ""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.inner = nn.Linear(3 * channels, channels)
        self.outer = nn.Linear(channels, channels)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """[B, M, C] -> [B, M, C]."""
        y = self.norm(x)
        past = y.new_zeros(y.shape[0], 2, y.shape[2])
        if state is not None:
            past = state.get(self.path, past).to(y.dtype)
        y = torch.cat([past, y], dim=1)
        if state is not None:
            state[self.path] = y[:, -2:].clone()
        y = self.inner(torch.cat([y[:, :-2], y[:, 1:-1], y[:, 2:]], dim=-1))
        return x + self.outer(F.gelu(y))


class ListenHead(nn.Module):
    """Streaming speech recogniser, turn detector and feature extractor in one.

    Args:
        config: the MichiAIConfig (its `listen_config`, `sampling_rate` and `frame_rate` are read).
        text_width: width of the LLM's embedding table.
    """

    def __init__(self, config: MichiAIConfig, text_width: int) -> None:
        super().__init__()
        own = config.listen_config
        hop = config.sampling_rate // own.mel_rate
        stages = round(math.log2(config.frame_size / hop))
        if hop * 2**stages != config.frame_size:
            raise ValueError(
                f"listen_config.mel_rate is {own.mel_rate}: a frame must hold 2, 4, 8 ... mel frames, "
                f"it holds {config.frame_size / hop:g}; choose mel_rate = frame_rate x a power of two"
            )
        self.mel = LogMel(config.sampling_rate, own.n_fft, hop, own.mel_bins)
        widths = [own.mel_bins] + [own.conv_width] * (stages - 1) + [own.width]
        self.halve = nn.ModuleList(HalfRate(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True))
        self.refine = nn.ModuleList(ResidualConv(width) for width in widths[1:-1])
        self.kernel: Int8Halvings | None = None  # both of them in one call; None: one by one
        self.path = ""
        self.text_norm = nn.LayerNorm(text_width, elementwise_affine=False)
        self.text_in = nn.Linear(text_width, own.width)
        self.transformer = CausalTransformer(own.width, own.layers, own.heads, own.window)
        self.text_out = nn.Linear(own.width, text_width)
        self.gates = nn.Linear(own.width, 2)  # emit, turn
        name_modules(self)

    def encode(self, mel: Tensor, state: StreamState | None = None) -> Tensor:
        """Log-mel [B, bins, M] -> sound per frame [B, T, D], before attention."""
        x = mel.transpose(1, 2).to(self.transformer.norm.weight.dtype)
        if self.kernel is not None:
            state = StreamState() if state is None else state
            path = f"{self.path}.halvings"
            x, state[path] = self.kernel(x, state.get(path, x.new_zeros(len(x), self.kernel.remembered)))
            return x
        for halve, refine in zip(
            self.halve, self.refine, strict=False
        ):  # the transformer refines the last rate
            x = refine(halve(x, state), state)
        return self.halve[-1](x, state)

    def attend(self, sound: Tensor, previous_text: Tensor, state: StreamState | None = None) -> ListenOutput:
        """Sound [B, T, D] and the embedding of the token of one frame before [B, T, W] -> what was heard."""
        x = sound + self.text_in(self.text_norm(previous_text))
        x = self.transformer(x, state)
        emit, turn = self.gates(x).unbind(-1)
        return ListenOutput(x, self.text_out(x), emit, turn)

    def forward(
        self, audio: Tensor, previous_text_embeds: Tensor, state: StreamState | None = None
    ) -> ListenOutput:
        """Audio [B, N] of whole frames and the embeddings of the tokens of one frame before [B, T, W]."""
        return self.attend(self.encode(self.mel(audio, state), state), previous_text_embeds, state)


def token_logits(text_hidden: Tensor, table: Tensor) -> Tensor:
    """Scores of the tokens, if one is due: text_hidden [..., W], table [V, W] -> [..., V], -inf at pad.

    The rows of the table are normalised: how often a token is written says nothing of how it sounds.
    """
    rows = F.layer_norm(table, table.shape[-1:]).to(text_hidden.dtype) / table.shape[-1] ** 0.25
    logits = (text_hidden @ rows.T).float()
    return logits.index_fill(-1, torch.tensor([PAD_ID], device=logits.device), float("-inf"))


def embed_tokens(table: Tensor | nn.Module, tokens: Tensor) -> Tensor:
    """Rows of the LLM's table, a weight [V, W] or a module that holds it in another form: [...] -> [...,
    W].
    """
    return table(tokens) if isinstance(table, nn.Module) else F.embedding(tokens, table)


def row_statistics(table: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse deviation of each row: [V, W] -> [V], [V]."""
    exact = torch.promote_types(table.dtype, torch.float32)
    mean = table.sum(-1, dtype=exact) / table.shape[-1]
    square = torch.linalg.vector_norm(table, dim=-1, dtype=exact).square() / table.shape[-1]
    return mean, (square - mean.square()).clamp(min=0).add(1e-5).rsqrt()


def greedy_text(output: ListenOutput, table: Tensor | nn.Module, gain: Tensor | None = None) -> Tensor:
    """The token heard in every frame, 0 where nothing is new: [B, T].

    The same choice as by `token_logits`, but without a normalised copy of the table: the rows' means and
    deviations are taken out of the product instead.

    Args:
        gain: added to the scores, in nats [B, V], as of `expected_gain` and `foreseen_gain`.
    """
    hidden = output.text_hidden
    if isinstance(table, nn.Module):
        scores, mean, scale = table.product(hidden, output.emit_logits > 0), table.mean, table.inverse_deviation
    else:
        scores, (mean, scale) = hidden @ table.T.to(hidden.dtype), row_statistics(table)
    scores = (scores.float() - hidden.float().sum(-1, keepdim=True) * mean) * scale
    if gain is not None:
        scores = scores + gain[:, None] * hidden.shape[-1] ** 0.25  # which `token_logits` divides by
    tokens = scores[..., PAD_ID + 1 :].argmax(-1) + PAD_ID + 1
    return torch.where(output.emit_logits > 0, tokens, PAD_ID)


def expect(state: StreamState, words: list[list[int]], like: Tensor) -> None:
    """From now on some words are likelier to be heard: names in a context, which nobody could spell otherwise.

    Contextual biasing by shallow fusion (Zhao et al., Interspeech 2019), with pairs of pieces in place of an automaton: a piece
    gains where the piece before it in its word was heard last; the first of a word gains always.

    Args:
        words: the pieces of each, alike for all rows; the newest expectations replace the oldest.
        like: a tensor of the batch and device.
    """
    pairs = dict.fromkeys(pair for word in words for pair in zip([PAD_ID, *word], word, strict=False))
    new = torch.tensor(list(pairs), dtype=torch.long, device=like.device).reshape(1, len(pairs), 2).expand(len(like), -1, -1)
    state["listen.expected"] = torch.cat([new, _expected(state, like)], 1)[:, :EXPECTED_SLOTS].clone()


def _expected(state: StreamState, like: Tensor) -> Tensor:
    """Pairs of pieces [B, EXPECTED_SLOTS, 2]; an empty slot stands for the token that is never chosen."""
    return state.begin("listen.expected", lambda: torch.zeros(len(like), EXPECTED_SLOTS, 2, dtype=torch.long, device=like.device))


def expected_gain(state: StreamState, vocabulary: int, like: Tensor) -> Tensor:
    """What each token gains by being expected now: nats [B, V]. `like`: a float tensor of the batch and device."""
    pairs = _expected(state, like)
    newest = state.get("listen.newest", torch.zeros_like(pairs[:, 0, 0]))
    due = (pairs[..., 0] == PAD_ID) | (pairs[..., 0] == newest[:, None])
    return like.new_zeros(len(like), vocabulary).scatter_reduce(1, pairs[..., 1], due.to(like.dtype) * EXPECTED_GAIN, "amax")


def foresee(state: StreamState, log_probs: Tensor, sure: Tensor, unsaid: list[int]) -> None:
    """The LLM's guess of the user's next word, for the frame after this: shallow fusion (Gulcehre et al., arXiv 1503.03535).

    Args:
        log_probs: of the next token by the LLM, up to a constant [B, V].
        sure: bool [B], False where the LLM has not yet read the newest word or speaks itself: then it guesses nothing.
        unsaid: tokens that no user says.
    """
    guess = log_probs.clone()
    for token in unsaid:
        guess[:, token] = float("-inf")
    guess = guess.log_softmax(-1).clamp(min=LEAST_FORESEEN) * FORESEEN_GAIN
    state["listen.foreseen"] = torch.where(sure[:, None], guess, 0.0)


def foreseen_gain(state: StreamState, vocabulary: int, like: Tensor) -> Tensor:
    """What each token gains by what the LLM foresees: nats [B, V]. `like`: a float tensor of the batch and device."""
    return state.begin("listen.foreseen", lambda: like.new_zeros(len(like), vocabulary))


def remember_newest(state: StreamState, tokens: Tensor) -> None:
    """Keep the token heard last: tokens [B] of a frame, 0 where nothing was new."""
    state["listen.newest"] = torch.where(tokens == PAD_ID, state.get("listen.newest", tokens), tokens)


@torch.no_grad()
def transcribe_frames(
    listen: ListenHead,
    table: Tensor | nn.Module,
    audio: Tensor,
    state: StreamState | None = None,
    previous: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Listen to whole clips, feeding back what was heard.

    Args:
        audio: [B, N], whole frames.
        table: the LLM's embedding table [V, W], as of `embed_tokens`.
        state: memory of an earlier call, to go on from there; changed in place.
        previous: [B], the last token of that call (0 at the start).
    Returns:
        tokens [B, T] (0: nothing new), embeds [B, T, D], turn logits [B, T].
    """
    state = StreamState() if state is None else state
    sound = listen.encode(listen.mel(audio, state), state)  # sound needs no feedback: the whole clip at once
    token = audio.new_zeros(audio.shape[0], dtype=torch.long) if previous is None else previous
    tokens, embeds, turns = [], [], []
    for frame in sound.split(1, dim=1):
        heard = listen.attend(frame, embed_tokens(table, token).unsqueeze(1), state)
        token = greedy_text(heard, table)[:, 0]
        tokens.append(token)
        embeds.append(heard.embeds[:, 0])
        turns.append(heard.turn_logits[:, 0])
    return torch.stack(tokens, 1), torch.stack(embeds, 1), torch.stack(turns, 1)
