"""A conversation in the events of OpenAI's Realtime API, as far as a model that listens while it talks can honour them.

The protocol takes turns, the model does not: every 80 ms of the user's sound give 80 ms of the model's. So
- what it says between `<turn>` and `<done>` is a response; sound is sent while there is one, in step with what comes in;
- what it hears is an item, from the first word to the turn gate (or to a second without words), during responses, too;
- it decides itself when it is its turn: `input_audio_buffer.commit` and `response.create` are taken, and change nothing;
- text that is sent becomes context, at once; instructions and voice stand before the conversation and cannot change in it.

No input or output here: events in, events out (https://platform.openai.com/docs/api-reference/realtime).
"""

import base64
import binascii
import secrets
from typing import Any

import numpy as np
import torch

from michiai.batch_michiai import Batch
from michiai.processing_michiai import StreamingResampler
from michiai.session_michiai import DuplexSession, Frame
from michiai.voice_michiai import Voice

from .events import RealtimeError, new_id, object_at, text_at, text_of

RATE = 24_000  # of the protocol's PCM, unless a client asks for another
RATES = range(8_000, 48_001, 25)  # all that are in use; a filter for any whole number would keep all clients waiting for seconds
TAIL = 2  # frames after `<done>` in which the last sound dies away
PAUSE = 1.0  # seconds without a word that end what the user says, should the turn gate not
PATIENCE = 10.0  # seconds after the last sound of the client for which silence goes on to pass


class Conversation:
    """What one connection holds.

    Args:
        batch: of a MichiAIModel, which the session joins.
        name: of the model, as clients are told it.
        voices: those that a client may ask for by name.
    """

    def __init__(self, batch: Batch, name: str, voices: dict[str, Voice]) -> None:
        self.batch, self.model, self.voices, self.session = batch, batch.model, voices, None
        self.prepared: DuplexSession | None = None  # after its prompt, until the first sound
        self.id, self.seed = new_id("sess"), secrets.randbits(31)
        self.instructions, self.voice, self.name, self.rates = "", "default", name, {"input": RATE, "output": RATE}
        self.waiting: list[np.ndarray] = []  # sound not yet pushed, int16
        self.resampler: StreamingResampler | None = None
        self.newest: str | None = None  # id of the newest item
        self.response: dict | None = None
        self.heard: dict | None = None  # the item of what the user is saying
        self.tail = 0
        self.user_frame = 0  # at which the client was last heard from

    # ---------------------------------------------------------------- events of the client

    def opened(self) -> dict:
        return {"type": "session.created", "session": self.described()}

    def receive(self, event: Any) -> list[dict]:
        """Answer an event; raises RealtimeError or ValueError where it cannot be honoured, and nothing has changed then."""
        kind = event.get("type") if isinstance(event, dict) else None
        handlers = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.clear": self._clear,
            "input_audio_buffer.commit": lambda event: [],
            "conversation.item.create": self._tell,
            "response.create": lambda event: [],
            "response.cancel": self._cancel,
        }
        if not isinstance(kind, str) or kind not in handlers:
            raise RealtimeError("unknown_event", f"type is {kind!r}; expected one of {', '.join(handlers)}", "type")
        return handlers[kind](event)

    def _update(self, event: dict) -> list[dict]:
        wanted = object_at(event, "session", "session")
        audio = object_at(wanted, "audio", "session.audio")
        sides = {side: object_at(audio, side, f"session.audio.{side}") for side in self.rates}
        instructions = text_at(wanted, "instructions", "session.instructions", self.instructions)
        voice = sides["output"].get("voice", self.voice)
        voice = voice.get("id") if isinstance(voice, dict) else voice
        rates = {side: self._rate(given.get("format"), self.rates[side], f"session.audio.{side}.format") for side, given in sides.items()}
        if wanted.get("output_modalities", ["audio"]) != ["audio"]:
            raise RealtimeError("unsupported", f"output_modalities is {wanted['output_modalities']!r}; expected ['audio'], "
                                "which comes with its transcript", "session.output_modalities")
        if wanted.get("tools"):
            raise RealtimeError("unsupported", "this model calls no tools; expected session.tools to be empty", "session.tools")
        if sides["input"].get("turn_detection", "as it is") is None:
            raise RealtimeError("unsupported", "turn_detection is null; expected it to be left out: "
                                "the model itself knows when it is its turn", "session.audio.input.turn_detection")
        if voice not in ("default", *self.voices):
            raise RealtimeError("invalid_value", f"voice is {voice!r}; expected one of {', '.join(['default', *self.voices])}",
                                "session.audio.output.voice")
        if self.session is not None and (instructions, voice, rates) != (self.instructions, self.voice, self.rates):
            raise RealtimeError("session_started", "instructions, voice and formats stand before the conversation, which has begun; "
                                "expected them before the first sound. Facts may come at any time, by conversation.item.create", "session")
        if instructions != self.instructions or voice != self.voice:
            self.prepared = self._begun(instructions, voice)  # is it too long? said now, not with the first sound
        self.instructions, self.voice, self.rates = instructions, voice, rates
        return [{"type": "session.updated", "session": self.described()}]

    def _append(self, event: dict) -> list[dict]:
        try:
            data = base64.b64decode(event.get("audio"), validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise RealtimeError("invalid_value", "audio is not base64; expected 16-bit little-endian PCM, mono", "audio") from error
        if len(data) % 2:
            raise RealtimeError("invalid_value", f"audio holds {len(data)} bytes; expected 16-bit samples, an even number", "audio")
        self._begin(self._ready())
        self.waiting.append(np.frombuffer(data, "<i2").copy())  # what bytes hold may not be written to
        self.user_frame = self.session.index
        return []

    def _clear(self, event: dict) -> list[dict]:
        self.waiting.clear()
        return [{"type": "input_audio_buffer.cleared"}]

    def _tell(self, event: dict) -> list[dict]:
        item = event.get("item")
        if not isinstance(item, dict) or item.get("type") != "message" or item.get("role") not in ("system", "user"):
            raise RealtimeError("unsupported", "expected an item of type message and role system or user", "item")
        text, key = text_of(item.get("content")), text_at(item, "id", "item.id", "") or new_id("item")
        if not text:
            raise RealtimeError("invalid_value", "the text is empty; expected a sentence: the train leaves at nine", "item.content")
        session = self._ready()
        session.inject(text)  # raises where it holds nothing to say: nothing has begun then
        self._begin(session)
        content = [{name: part[name] for name in ("type", "text")} for part in item["content"]]  # told again as far as it is known
        return self._added({"id": key, "object": "realtime.item", "type": "message", "role": item["role"], "status": "completed",
                            "content": content})

    def _cancel(self, event: dict) -> list[dict]:
        if self.response is None or self.tail:
            raise RealtimeError("response_cancel_not_active", "the model is silent; expected a response that is going on")
        self.session.stop()
        self.response["status"], self.response["status_details"] = "cancelled", {"type": "cancelled", "reason": "client_cancelled"}
        return []

    # ---------------------------------------------------------------- the session

    def _rate(self, form: Any, now: int, param: str) -> int:
        if form is None:
            return now
        if not isinstance(form, dict) or form.get("type", "audio/pcm") != "audio/pcm":
            raise RealtimeError("unsupported", f"the format is {form!r}; expected audio/pcm", param)
        rate = form.get("rate", RATE)
        if rate not in RATES:
            raise RealtimeError("invalid_value", f"rate is {rate!r}; expected a multiple of {RATES.step} from {RATES[0]} to {RATES[-1]}",
                                f"{param}.rate")
        return int(rate)

    def _begun(self, instructions: str, voice: str) -> DuplexSession:
        return self.model.session(voice=self.voices.get(voice), instructions=instructions, seed=self.seed)

    def _ready(self) -> DuplexSession:
        """The session; before the conversation, one that it may begin with."""
        return self.session or self.prepared or self._begun(self.instructions, self.voice)

    def _begin(self, session: DuplexSession) -> None:
        """The conversation begins with this session, if it has not."""
        if self.session is not None:
            return
        self.batch.add(session)
        self.session, self.prepared = session, None
        self.resampler = StreamingResampler(self.model.config.sampling_rate, self.rates["output"])

    def described(self) -> dict:
        """The session object of the protocol."""
        pcm = {side: {"type": "audio/pcm", "rate": rate} for side, rate in self.rates.items()}
        return {
            "type": "realtime", "object": "realtime.session", "id": self.id, "model": self.name, "output_modalities": ["audio"],
            "instructions": self.instructions, "tools": [], "tool_choice": "none",
            "audio": {
                "input": {"format": pcm["input"], "transcription": {"model": self.name},
                          "turn_detection": {"type": "semantic_vad", "create_response": True, "interrupt_response": True}},
                "output": {"format": pcm["output"], "voice": self.voice},
            },
        }

    def close(self) -> None:
        for session in (self.prepared, self.session):
            if session is not None:
                session.close()

    # ---------------------------------------------------------------- frames

    @property
    def expects_time(self) -> bool:
        """Whether silence should pass for a client that has stopped sending: something may still be said."""
        if self.session is None:
            return False
        quiet = (self.session.index - self.user_frame) / self.model.config.frame_rate
        return self.response is not None or quiet < PATIENCE

    def silence(self, seconds: float) -> None:
        """The client sent nothing for so long."""
        self.waiting.append(np.zeros(round(seconds * self.rates["input"]), np.int16))

    def listen(self) -> bool:
        """Let the session hear what has come, up to the end of its next frame; whether that is there."""
        size = self.rates["input"] // 50  # 20 ms: never more than one frame at a time
        while self.waiting and not self.session.frame_is_due:
            piece, rest = self.waiting[0][:size], self.waiting[0][size:]
            self.waiting[:1] = [rest] if len(rest) else []
            self.session.hear(piece, sampling_rate=self.rates["input"])
        return self.session is not None and self.session.frame_is_due

    def events(self, frame: Frame) -> list[dict]:
        """What the session's next frame tells the client."""
        events = self._hearing(frame)
        if frame.speaking and (self.response is None or self.tail):
            events += self._end_response() if self.response else []
            events += self._begin_response()
        sound = self.resampler.push(frame.audio)
        if self.response is not None:
            events += self._saying(frame, sound)
            if not frame.speaking:
                self.tail += 1
                events += self._end_response() if self.tail > TAIL else []
        return events

    def _milliseconds(self, frame: int) -> int:
        return round(max(0, frame) * 1000 / self.model.config.frame_rate)

    # ---------------------------------------------------------------- what the user says

    def _hearing(self, frame: Frame) -> list[dict]:
        events: list[dict] = []
        delay = self.model.config.listen_config.delay  # frames after a word's end until it becomes known
        if frame.user_text:
            if self.heard is None:
                self.heard = {"id": new_id("item"), "text": "", "last": 0, "finished": 0, "committed": False}
                events.append({"type": "input_audio_buffer.speech_started", "audio_start_ms": self._milliseconds(frame.index + 1 - delay),
                               "item_id": self.heard["id"]})
            self.heard["text"] += frame.user_text
            self.heard["last"], self.heard["finished"] = frame.index, 0
            events.append({"type": "conversation.item.input_audio_transcription.delta", "item_id": self.heard["id"], "content_index": 0,
                           "delta": frame.user_text})
        elif self.heard is not None:
            said, pause = self.heard, (frame.index - self.heard["last"]) / self.model.config.frame_rate
            said["finished"] = said["finished"] + 1 if frame.turn_probability > 0.5 else 0
            if pause > PAUSE or said["finished"] > delay + 1:  # the gate knows of the end before the last word is known
                events += self._commit()
                events.append({"type": "conversation.item.input_audio_transcription.completed", "item_id": said["id"], "content_index": 0,
                               "transcript": said["text"].strip()})
                self.heard = None
        return events

    def _commit(self) -> list[dict]:
        """What the user says is an item of the conversation; words of it may still become known."""
        if self.heard is None or self.heard["committed"]:
            return []
        self.heard["committed"], key, before = True, self.heard["id"], self.newest
        item = {"id": key, "object": "realtime.item", "type": "message", "role": "user", "status": "completed",
                "content": [{"type": "input_audio", "transcript": None}]}
        end = self._milliseconds(self.heard["last"] + 1 - self.model.config.listen_config.delay)
        return [
            {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": end, "item_id": key},
            {"type": "input_audio_buffer.committed", "item_id": key, "previous_item_id": before},
            *self._added(item),
        ]

    def _added(self, item: dict) -> list[dict]:
        before, self.newest = self.newest, item["id"]
        return [{"type": f"conversation.item.{what}", "item": item, "previous_item_id": before} for what in ("added", "done")]

    # ---------------------------------------------------------------- what the model says

    def _place(self) -> dict:
        return {"response_id": self.response["id"], "item_id": self.response["item"]["id"], "output_index": 0}

    def _begin_response(self) -> list[dict]:
        events = self._commit()
        item = {"id": new_id("item"), "object": "realtime.item", "type": "message", "role": "assistant", "status": "in_progress",
                "content": []}
        self.response, self.tail = {"id": new_id("resp"), "status": "in_progress", "status_details": None, "item": item, "text": "",
                                    "before": self.newest}, 0
        before, self.newest = self.newest, item["id"]
        return [
            *events,
            {"type": "response.created", "response": self._response([])},
            {"type": "response.output_item.added", "response_id": self.response["id"], "output_index": 0, "item": dict(item)},
            {"type": "conversation.item.added", "item": dict(item), "previous_item_id": before},
            {"type": "response.content_part.added", **self._place(), "content_index": 0, "part": {"type": "audio", "transcript": ""}},
        ]

    def _response(self, output: list[dict]) -> dict:
        shown = {name: self.response[name] for name in ("id", "status", "status_details")}
        return {"object": "realtime.response", **shown, "output": output, "output_modalities": ["audio"], "usage": None,
                "audio": self.described()["audio"]["output"]}

    def _saying(self, frame: Frame, sound: torch.Tensor) -> list[dict]:
        pcm = (sound.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes()
        events = [{"type": "response.output_audio.delta", **self._place(), "content_index": 0, "delta": base64.b64encode(pcm).decode()}]
        if frame.text:
            self.response["text"] += frame.text
            events.append({"type": "response.output_audio_transcript.delta", **self._place(), "content_index": 0, "delta": frame.text})
        return events

    def _end_response(self) -> list[dict]:
        text, place = self.response["text"].strip(), {**self._place(), "content_index": 0}
        if self.response["status"] == "in_progress":
            self.response["status"] = "completed"
        part = {"type": "audio", "transcript": text}
        item = {**self.response["item"], "content": [{"type": "output_audio", "transcript": text}],
                "status": "completed" if self.response["status"] == "completed" else "incomplete"}
        events = [
            {"type": "response.output_audio.done", **place},
            {"type": "response.output_audio_transcript.done", **place, "transcript": text},
            {"type": "response.content_part.done", **place, "part": part},
            {"type": "response.output_item.done", "response_id": self.response["id"], "output_index": 0, "item": item},
            {"type": "conversation.item.done", "item": item, "previous_item_id": self.response["before"]},
            {"type": "response.done", "response": self._response([item])},
        ]
        self.response, self.tail = None, 0
        return events
