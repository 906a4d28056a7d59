"""What events of the Realtime API are made of: ids, errors, and fields that are read with care."""

import secrets
from typing import Any

LONGEST_TEXT = 20_000  # characters: ten times what any window holds; a megabyte would keep all clients waiting for three seconds


class RealtimeError(ValueError):
    """What a client did wrong: `code` and `param` as the protocol names them."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.param = code, param


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


def error_event(error: Exception, cause: Any = None) -> dict:
    """An error as the client is told it; `cause`: the `event_id` of what it answers, if that is a text."""
    told = {name: getattr(error, name, other) for name, other in (("code", "invalid_value"), ("param", None))}
    told["message"] = " ".join(str(error).split())
    return {"type": "error", "error": {"type": "invalid_request_error", **told, "event_id": cause if isinstance(cause, str) else None}}


def object_at(holder: dict, name: str, param: str) -> dict:
    """`holder[name]`, empty where it is missing; raises where it is no object."""
    value = holder.get(name)
    if value is not None and not isinstance(value, dict):
        raise RealtimeError("invalid_type", f"{param} is {value!r}; expected an object", param)
    return value or {}


def text_at(holder: dict, name: str, param: str, other: str | None = None) -> str:
    """`holder[name]`, `other` where it is missing; raises where it is no text, or far too long a one."""
    value = other if holder.get(name) is None else holder[name]
    if not isinstance(value, str):
        raise RealtimeError("invalid_type", f"{param} is {value!r}; expected text", param)
    if len(value) > LONGEST_TEXT:
        raise RealtimeError("invalid_value", f"{param} has {len(value)} characters; expected at most {LONGEST_TEXT}: shorten it", param)
    return value


def text_of(content: Any) -> str:
    """The text of an item's content; raises where there is anything else."""
    parts = content if isinstance(content, list) else []
    if not parts or any(not isinstance(part, dict) or part.get("type") not in ("input_text", "text") for part in parts):
        raise RealtimeError("invalid_value", "expected an item whose content is a list of input_text; "
                            "sound goes to input_audio_buffer.append", "item.content")
    text = " ".join(text_at(part, "text", f"item.content[{i}].text") for i, part in enumerate(parts)).strip()
    return text_at({"text": text}, "text", "item.content")
