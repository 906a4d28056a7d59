"""What the tabs and the page's API do: functions from files to files, with errors that a visitor can read."""

import functools
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import soundfile
import torch

from evaluation.plots import plot_reply

from .engine import Engine
from .live import plain
from .reference import check_reference

LONGEST = 60.0  # seconds of a question
LONGEST_WORDS = 400  # characters to say


def readable(function: Callable) -> Callable:
    """Bad input becomes a message on the page, and of the API."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            raise gr.Error(plain(error), duration=None, print_exception=False) from error

    return wrapped


class Offline:
    """The four functions.

    Args:
        engine: the model.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @readable
    def converse(
        self,
        audio: str,
        voice: str | None = None,
        instructions: str = "",
        context: str = "",
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 - how Gradio wants it
    ) -> tuple:
        """Answer a recorded question.

        Args:
            audio: what you say, up to 60 s.
            voice: a voice file from /clone; left out: MichiAI's own voice.
            instructions: who it is, for instance "your name is nora."
            context: what it should know, for instance "the train to paris leaves at nine."

        Returns:
            the answer, both sides in stereo (you left, MichiAI right), the transcript (rows of start, end,
            who, text), and the picture.
        """
        reply = self.engine.model.converse(
            self._sound(audio),
            voice=self.engine.voice(voice),
            instructions=instructions or "",
            context=context or "",
            progress=True,
        )
        rate = self.engine.rate
        names = {"user": "you", "michi": "MichiAI"}
        rows = [
            {"start": round(a, 2), "end": round(b, 2), "who": names[who], "text": text}
            for a, b, who, text in reply.transcript()
        ]
        picture = io.BytesIO()
        plot_reply(reply, picture)
        picture.seek(0)
        from PIL import Image

        answer, both = pcm(reply.audio), pcm(torch.stack([reply.user_audio, reply.audio], dim=1))
        return (rate, answer), (rate, both), rows, Image.open(picture)

    @readable
    def speak(self, text: str, voice: str | None = None) -> tuple[int, np.ndarray]:
        """Say a text.

        Args:
            text: words to say; <laugh>, <breath> and <cough> are sounds.
            voice: a voice file from /clone; left out: MichiAI's own voice.

        Returns:
            the speech.
        """
        return self.engine.rate, pcm(
            self.engine.model.speak(self._words(text), voice=self.engine.voice(voice))
        )

    @readable
    def transcribe(self, audio: str) -> tuple[str, list]:
        """Write down what it hears.

        Args:
            audio: speech, up to 60 s.

        Returns:
            the text, and its words, each with the second at which it ended.
        """
        heard = self.engine.model.transcribe(self._sound(audio))
        return heard.text, [{"word": word, "end": round(end, 2)} for word, end in heard.words]

    @readable
    def clone(self, audio: str, consent: bool, text: str = "hello, this is my voice now.") -> tuple:
        """Make a voice of 3 to 30 s of speech.

        Args:
            audio: one person speaking.
            consent: that the person agrees; without it nothing is cloned.
            text: a sentence to hear in the voice.

        Returns:
            the voice file, the sentence in the voice, and remarks about the recording.
        """
        if not consent:
            raise ValueError(
                "consent is not given; expected a tick at its sentence: clone only your own voice, or "
                "one whose owner agrees"
            )
        words = self._words(text)
        samples, rate = self._sound(audio)
        remarks = check_reference(samples, rate)
        voice = self.engine.model.voice((samples, rate))
        folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
        voice.save(folder / "voice.safetensors")
        said = pcm(self.engine.model.speak(words, voice=voice))
        return str(folder / "voice.safetensors"), (self.engine.rate, said), " ".join(remarks)

    # ---------------------------------------------------------------- checks

    def _words(self, text: str) -> str:
        text = (text or "").strip()
        if len(text) > LONGEST_WORDS:
            raise ValueError(
                f"the text has {len(text)} characters; expected at most {LONGEST_WORDS}: say it in parts"
            )
        if not any(char.isalnum() for char in text):
            raise ValueError(f"the text is {text!r}, which has nothing to say; expected at least one word")
        return text

    def _sound(self, audio: str | None) -> tuple[np.ndarray, int]:
        """Samples [N, channels] and their rate; messages name no path, which would be the server's."""
        if not audio:
            raise ValueError("no recording was given; expected speech: record some, or upload a file")
        if not Path(audio).is_file():
            raise ValueError(
                "the recording is not here any more: uploads are deleted after some minutes; give it again"
            )
        try:
            seconds = soundfile.info(audio).duration
            if seconds > LONGEST:
                raise ValueError(
                    f"the recording is {seconds:.0f} s long; expected at most {LONGEST:g} s: "
                    "cut it, or talk in the live tab"
                )
            samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise ValueError("the recording cannot be read; expected WAV, FLAC, Ogg or MP3") from error
        if not len(samples):
            raise ValueError(
                "the recording is empty (0 samples); expected speech: was the recording not started?"
            )
        return samples, rate


def pcm(audio: torch.Tensor) -> np.ndarray:
    """Float [N] or [N, 2] -> int16."""
    return (audio.clamp(-1, 1) * 32767).short().numpy()
