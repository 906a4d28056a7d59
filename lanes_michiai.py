"""The two lanes of a conversation, as tokens: what enters the text lane and when, and what a frame of the sound lane holds.

B batch, T positions or frames, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .streaming_michiai import StreamState

EMPTY, TEXT, SOUND, ASIDE = 0, 1, 2, 3  # kinds of positions; nothing sees an empty one, an aside is the user's word in an answer
ENTERING = 2  # words that enter the text lane before a frame, at most
WAITING = 2  # words that may wait for their place there


def newest_words(
    user_text: Tensor, own_text: Tensor, past: Tensor | None = None, frame: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The newest word of each frame, and for how many frames it has been that.

    Args:
        user_text, own_text: tokens [B, T], 0 where nothing is new; of two in one frame, one's own is the newest.
        past: [B, 2] the last frame's word and age; None or zeros: there is none.
        frame: bool [B, T], False where a position is no frame and takes no time.
    Returns:
        words [B, T], the user's negative, 0 before the first; frames since then [B, T].
    """
    B, T = own_text.shape
    if past is None:
        past = own_text.new_zeros(B, 2)
    spoken = torch.where(own_text > 0, own_text, -user_text)
    clock = torch.ones_like(own_text) if frame is None else frame.long()
    words = torch.cat([past[:, :1], spoken], 1)
    clock = torch.cat([-past[:, 1:], clock.cumsum(1)], 1)
    index = torch.arange(T + 1, device=words.device).expand(B, -1)
    newest = (index * (words != 0)).cummax(1).values[:, 1:]
    return words.gather(1, newest), clock[:, 1:] - clock.gather(1, newest)


def next_text(own_text: Tensor, user_text: Tensor, state: StreamState, special: dict[str, int]) -> Tensor:
    """What enters the text lane before a frame: the words of the frame before, the user's first.

    `<user>` follows `<done>`, as it does in plain text; what the user says while one speaks oneself is negative. Of the three
    words that `<done>` may bring about, one waits.

    Args:
        own_text, user_text: tokens of the frame before [B], 0 where nothing was new.
        state: the words that wait, and whether one speaks.
        special: ids of the special tokens.
    Returns:
        tokens [B, ENTERING], 0 where there is none; those that are there come first.
    """
    waiting, speaking = state.get("backbone.waiting"), state.get("backbone.speaking")
    if waiting is None or speaking is None:
        waiting, speaking = own_text.new_zeros(len(own_text), WAITING), torch.zeros_like(own_text)
    ended = (own_text == special["<done>"]).long()
    new = torch.stack([user_text * (1 - 2 * speaking), own_text, ended * special["<user>"]], 1)
    queue = torch.cat([waiting, new], 1)
    queue = queue.gather(1, (queue == 0).long().argsort(dim=1, stable=True))
    state["backbone.waiting"] = queue[:, ENTERING : ENTERING + WAITING].clone()
    state["backbone.speaking"] = (speaking | (own_text == special["<turn>"])) * (1 - ended)
    return queue[:, :ENTERING]


def speaks(state: StreamState, like: Tensor) -> Tensor:
    """Whether one is in an answer, as far as the text lane has come: bool [B]. `like`: a tensor of that shape and device."""
    # kept if it is new: a recorded frame knows the memories alone that its first run left
    return state.begin("backbone.speaking", lambda: torch.zeros_like(like)) > 0


def words_due(state: StreamState, special: dict[str, int], due: Tensor | None = None) -> int:
    """How many words enter the text lane before the next frame, in the row with the most, of those that are `due` (bool [B]; None: all);
    on a GPU, which one would have to wait for, always ENTERING.
    """
    news = [state[path] for path in ("own_text", "user_text", "backbone.waiting") if path in state]
    if any(part.is_cuda for part in news):
        return ENTERING
    if not news:
        return 0
    words = sum((part != 0).sum(1) for part in news) + (state["own_text"] == special["<done>"]).sum(1)
    return min(int((words if due is None else words * due).max()), ENTERING)


def text_lane(user_text: Tensor, own_text: Tensor, special: dict[str, int]) -> Tensor:
    """`next_text` of whole conversations from their start: tokens [B, T, 2], before each frame.

    Args:
        user_text: [B, T], tokens heard in the frame.
        own_text: [B, T], own token of the frame before.
    """
    state, before = StreamState(), F.pad(user_text[:, :-1], (1, 0))
    return torch.stack([next_text(own, user, state, special) for own, user in zip(own_text.T, before.T, strict=True)], 1)


def kind_of(tokens: Tensor) -> Tensor:
    """Kinds of the text lane's positions, as `next_text` gives them: tokens -> EMPTY, TEXT or ASIDE."""
    return torch.where(tokens > 0, TEXT, torch.where(tokens < 0, ASIDE, EMPTY))


def lanes(kind: Tensor) -> tuple[Tensor, Tensor]:
    """Which positions stand in the text lane and which in the sound lane: bool, as `kind`."""
    return (kind == TEXT) | (kind == ASIDE), kind == SOUND


def newest_text(hidden: Tensor, kind: Tensor, before: Tensor | None = None) -> Tensor:
    """Of each position, the hidden state of the newest text, asides left out: an answer goes on after them.

    [B, T, D] -> [B, T, D].

    Args:
        kind: of the positions [B, T].
        before: [B, D] the newest text's before these; None: zeros.
    """
    if before is None:
        before = torch.zeros_like(hidden[:, 0])
    index = torch.arange(1, kind.shape[1] + 1, device=kind.device) * (kind == TEXT)
    index = index.cummax(1).values[..., None].expand_as(hidden)
    return torch.cat([before[:, None], hidden], 1).gather(1, index)
