"""The protocol without any input or output: events in their order, every misuse told."""

import base64
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from michiai.serving.events import RealtimeError, error_event
from michiai.serving.realtime import RATE, Conversation
from michiai.session_michiai import Frame

from realtime_events import append, message, update

SIZE = 1280


class Played:
    """A session whose frames are given: (own text, heard text, speaking, turn probability)."""

    def __init__(self, frames: list[tuple[str, str, bool, float]]) -> None:
        self.given, self.index, self.pending, self.told, self.stopped = frames, 0, 0, [], 0

    def hear(self, pcm: np.ndarray, sampling_rate: int) -> None:
        self.pending += len(pcm) * 16_000 // sampling_rate

    @property
    def frame_is_due(self) -> bool:
        return self.pending >= SIZE

    def frames(self) -> list[Frame]:
        self.pending -= SIZE
        text, heard, speaking, finished = self.given[self.index] if self.index < len(self.given) else ("", "", False, 0.0)
        self.index += 1
        return [Frame(self.index - 1, torch.full((SIZE,), 0.5 if speaking else 0.0), text, heard, speaking, finished, 0.0)]

    def inject(self, text: str) -> None:
        self.told.append(text)

    def stop(self) -> None:
        self.stopped += 1

    def close(self) -> None:
        pass


def played(frames: list[tuple[str, str, bool, float]]) -> Conversation:
    config = SimpleNamespace(sampling_rate=16_000, frame_rate=12.5, listen_config=SimpleNamespace(delay=3))
    model = SimpleNamespace(config=config, session=lambda **_: Played(frames))
    return Conversation(SimpleNamespace(model=model, add=lambda session: None), "michiai", {"ada": None})


def next_events(conversation: Conversation) -> list[dict] | None:
    """Of the next frame, if its sound has come."""
    return conversation.events(*conversation.session.frames()) if conversation.listen() else None


def events_of(conversation: Conversation, seconds: float) -> list[dict]:
    assert conversation.receive(append(seconds)) == []
    events = []
    while (new := next_events(conversation)) is not None:
        events += new
    return events


ASKED = [("", "", False, 0.0)] * 4 + [("", " how are", False, 0.0), ("", " you", False, 0.9), ("", "", False, 0.9)]
ANSWERED = [("", "", True, 0.9)] * 3 + [(" fine", "", True, 0.9), (" thanks", "", True, 0.0)] + [("", "", False, 0.0)] * 4


def test_a_question_and_its_answer() -> None:
    events = events_of(played(ASKED + ANSWERED), 16 * 0.08)
    kinds = [event["type"].removeprefix("conversation.item.") for event in events]
    transcription, response = "input_audio_transcription", "response"
    assert kinds == [
        "input_audio_buffer.speech_started", f"{transcription}.delta", f"{transcription}.delta",
        "input_audio_buffer.speech_stopped", "input_audio_buffer.committed", "added", "done",
        f"{response}.created", f"{response}.output_item.added", "added", f"{response}.content_part.added",
        *[f"{response}.output_audio.delta"] * 3, f"{transcription}.completed",
        *[f"{response}.output_audio.delta", f"{response}.output_audio_transcript.delta"] * 2,
        *[f"{response}.output_audio.delta"] * 3,
        f"{response}.output_audio.done", f"{response}.output_audio_transcript.done", f"{response}.content_part.done",
        f"{response}.output_item.done", "done", f"{response}.done",
    ]
    by = {event["type"]: event for event in events}
    assert by["conversation.item.input_audio_transcription.completed"]["transcript"] == "how are you"
    assert by["input_audio_buffer.speech_started"]["audio_start_ms"] == 2 * 80  # known three frames after it was said
    assert by["response.output_audio_transcript.done"]["transcript"] == "fine thanks"
    done = by["response.done"]["response"]
    assert done["status"] == "completed" and done["output"][0]["content"] == [{"type": "output_audio", "transcript": "fine thanks"}]
    user = by["input_audio_buffer.committed"]["item_id"]
    assert [e["previous_item_id"] for e in events if e["type"] == "conversation.item.done"] == [None, user]
    sound = b"".join(base64.b64decode(e["delta"]) for e in events if e["type"] == "response.output_audio.delta")
    assert abs(len(sound) // 2 - 8 * 0.08 * RATE) < 60 and np.frombuffer(sound, "<i2").max() > 16_000


def test_words_heard_during_an_answer_are_an_item_too() -> None:
    frames = [(" well", "", True, 0.0)] + [("", " stop", True, 0.0)] + [("", "", True, 0.0)] * 20 + [("", "", False, 0.0)] * 4
    events = events_of(played(frames), 26 * 0.08)
    kinds = [event["type"] for event in events]
    started, stopped = (kinds.index(f"input_audio_buffer.speech_{what}") for what in ("started", "stopped"))
    assert kinds.index("response.created") < started < stopped < kinds.index("response.done")
    assert kinds.count("response.created") == kinds.count("response.done") == 1


def test_an_answer_that_follows_at_once_is_another() -> None:
    frames = [(" one", "", True, 0.0), ("", "", False, 0.0), (" two", "", True, 0.0), ("", "", True, 0.0)] + [("", "", False, 0.0)] * 4
    events = events_of(played(frames), 8 * 0.08)
    assert [e["transcript"] for e in events if e["type"] == "response.output_audio_transcript.done"] == ["one", "two"]


def test_a_client_stops_an_answer() -> None:
    conversation = played([(" well", "", True, 0.0)] * 3 + [("", "", False, 0.0)] * 4)
    with pytest.raises(RealtimeError, match="the model is silent"):
        conversation.receive({"type": "response.cancel"})
    events_of(conversation, 2 * 0.08)
    assert conversation.receive({"type": "response.cancel"}) == [] and conversation.session.stopped == 1
    done = events_of(conversation, 5 * 0.08)[-1]
    assert done["type"] == "response.done" and done["response"]["status"] == "cancelled"


def test_silence_passes_while_something_may_be_said() -> None:
    conversation = played([])
    assert not conversation.expects_time
    events_of(conversation, 0.16)
    assert conversation.expects_time
    conversation.silence(9.6)
    while next_events(conversation) is not None:
        pass
    assert conversation.expects_time
    conversation.silence(0.8)
    while next_events(conversation) is not None:
        pass
    assert not conversation.expects_time


BAD = {
    "no object": ([], "unknown_event", "type is None"),
    "type": ({"type": ["a"]}, "unknown_event", "type is ['a']"),
    "unknown": ({"type": "response.sing"}, "unknown_event", "'response.sing'; expected one of session.update"),
    "session": (update() | {"session": 3}, "invalid_type", "session is 3; expected an object"),
    "audio": (update(audio=[1]), "invalid_type", "session.audio is"),
    "instructions": (update(instructions=3), "invalid_type", "instructions is 3"),
    "voice": (update(audio={"output": {"voice": "alloy"}}), "invalid_value", "'alloy'; expected one of default, ada"),
    "format": (update(audio={"input": {"format": {"type": "audio/pcmu"}}}), "unsupported", "expected audio/pcm"),
    "rate": (update(audio={"output": {"format": {"type": "audio/pcm", "rate": 0}}}), "invalid_value", "rate is 0"),
    "odd rate": (update(audio={"input": {"format": {"rate": 767_999}}}), "invalid_value", "expected a multiple of 25 from 8000 to 48000"),
    "endless rate": (update(audio={"input": {"format": {"rate": float("inf")}}}), "invalid_value", "rate is inf"),
    "turns": (update(audio={"input": {"turn_detection": None}}), "unsupported", "turn_detection is null"),
    "text only": (update(output_modalities=["text"]), "unsupported", "expected ['audio']"),
    "tools": (update(tools=[{"name": "a"}]), "unsupported", "tools"),
    "not base64": ({"type": "input_audio_buffer.append", "audio": "%"}, "invalid_value", "not base64"),
    "no sound": ({"type": "input_audio_buffer.append", "audio": 3}, "invalid_value", "not base64"),
    "nothing": ({"type": "input_audio_buffer.append"}, "invalid_value", "not base64"),
    "odd bytes": ({"type": "input_audio_buffer.append", "audio": "AAAA"}, "invalid_value", "3 bytes"),
    "sound as item": (message(content=[{"type": "input_audio", "audio": ""}]), "invalid_value", "input_text"),
    "empty text": (message(content=[{"type": "input_text", "text": " "}]), "invalid_value", "the text is empty"),
    "no text": (message(content=[{"type": "input_text", "text": None}]), "invalid_type", "item.content[0].text is None; expected text"),
    "item's id": (message(id=3, content=[{"type": "input_text", "text": "nine"}]), "invalid_type", "item.id is 3; expected text"),
    "long text": (update(instructions="a" * 20_001), "invalid_value", "instructions has 20001 characters; expected at most 20000"),
    "long item": (message(content=[{"type": "input_text", "text": "a" * 11_000}] * 2), "invalid_value", "content has 22001 characters"),
    "a tool's item": (message(type="function_call_output"), "unsupported", "type message"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_honoured_is_said_and_loses_nothing(name: str) -> None:
    event, code, words = BAD[name]
    conversation = played(ASKED + ANSWERED)
    before = conversation.described()
    with pytest.raises(RealtimeError) as error:
        conversation.receive(event)
    told = error_event(error.value, "event_1")["error"]
    assert told["code"] == code and words in told["message"] and told["event_id"] == "event_1"
    assert conversation.described() == before and conversation.session is None
    assert events_of(conversation, 16 * 0.08)[-1]["type"] == "response.done"


def test_what_stands_before_a_conversation_cannot_change_in_it() -> None:
    conversation = played(ASKED)
    output = {"voice": {"id": "ada"}, "format": {"type": "audio/pcm", "rate": 16_000}}
    wanted = update(instructions="Your name is Nora.", audio={"output": output})
    (updated,) = conversation.receive(wanted)
    session = updated["session"]
    assert session["instructions"] == "Your name is Nora." and session["audio"]["output"]["voice"] == "ada"
    assert session["audio"]["output"]["format"]["rate"] == 16_000 and session["audio"]["input"]["format"]["rate"] == RATE
    events_of(conversation, 0.16)
    assert conversation.receive(wanted)[0]["type"] == "session.updated"
    with pytest.raises(RealtimeError, match="which has begun"):
        conversation.receive(update(instructions="Your name is Tom."))
    added, done = conversation.receive(message(content=[{"type": "input_text", "text": "the train leaves at nine"}]))
    assert added["type"] == "conversation.item.added" and done["item"]["status"] == "completed"
    assert conversation.session.told == ["the train leaves at nine"]
