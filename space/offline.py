"""What the tabs and the page's API do: functions from files to files, with errors that a visitor can read."""

import functools
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import gradio as gr
import numpy as np
import soundfile
import torch

from evaluation.plots import plot_reply

from .engine import Engine
from .live import plain
from .reference import check_reference

LONGEST = 60.0  # seconds of a question
MOST_SAMPLES = round(LONGEST * 2 * 192_000)  # of all channels together: what is packed well may be gigabytes when it is read
LONGEST_WORDS = 400  # characters to say
LONGEST_SPEECH = 30.0  # seconds in which they are said: longer ones are words that are none, spelt letter by letter
SILENCE = 0.001  # peak: -60 dB of full scale
READ_ALOUD = 14  # characters per second, about
TELEPHONES = "mov,matroska,aac,amr"  # formats; not those that name other files or addresses to be read, as playlists do
SHOWN = 20  # seconds that a message stays


def readable(function: Callable) -> Callable:
    """Bad input becomes a message on the page, and of the API."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            raise gr.Error(plain(error), duration=SHOWN, print_exception=False) from error

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
        name: str | None = None,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008 - how Gradio wants it
    ) -> tuple:
        """Answer a recorded question.

        Args:
            audio: what you say, up to 60 s.
            voice: a voice file from /clone; left out: the voice of that name.
            instructions: who it is, for instance "your name is nora."
            context: what it should know, for instance "the train to paris leaves at nine."
            name: a bundled voice: ada, ben or cleo; left out: MichiAI's own.

        Returns:
            the answer, both sides in stereo (you left, MichiAI right), the transcript (rows of start, end,
            who, text), and the picture.
        """
        reply = self.engine.model.converse(
            audible(self._sound(audio)),
            voice=self.engine.voice(voice, name),
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
    def speak(
        self,
        text: str,
        voice: str | None = None,
        name: str | None = None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[int, np.ndarray]:
        """Say a text.

        Args:
            text: words to say; <laugh>, <breath> and <cough> are sounds.
            voice: a voice file from /clone; left out: the voice of that name.
            name: a bundled voice: ada, ben or cleo; left out: MichiAI's own.

        Returns:
            the speech, up to 30 s.
        """
        return self.engine.rate, self._say(self._words(text), self.engine.voice(voice, name), progress)

    @readable
    def transcribe(self, audio: str) -> tuple[str, list]:
        """Write down what it hears.

        Args:
            audio: speech, up to 60 s.

        Returns:
            the text, and its words, each with the second at which it ended.
        """
        heard = self.engine.model.transcribe(audible(self._sound(audio)))
        if not heard.text:
            gr.Info("It heard no words.")
        return heard.text, [{"word": word, "end": round(end, 2)} for word, end in heard.words]

    @readable
    def clone(
        self,
        audio: str,
        consent: bool,
        text: str = "hello, this is my voice now.",
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple:
        """Make a voice of 3 to 30 s of speech.

        Args:
            audio: one person speaking.
            consent: that the person agrees; without it nothing is cloned.
            text: a sentence to hear in the voice.

        Returns:
            the voice file, the sentence in the voice, and remarks about the recording.
        """
        if consent is not True:  # not the string "no" either
            raise ValueError(
                "consent is not given; expected a tick at its sentence: clone only your own voice, or "
                "one whose owner agrees"
            )
        words = self._words(text)
        samples, rate = self._sound(audio)
        progress(0, desc="Listening to the recording")
        remarks = check_reference(samples, rate)
        voice = self.engine.model.voice((samples, rate))
        said = self._say(words, voice, progress)  # what may be refused comes before anything is saved
        folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
        voice.save(folder / "voice.safetensors")
        return str(folder / "voice.safetensors"), (self.engine.rate, said), " ".join(remarks)

    def _say(self, words: str, voice: Any, progress: gr.Progress) -> np.ndarray:
        """int16 [N], as far as it goes within LONGEST_SPEECH."""
        last = round(LONGEST_SPEECH / self.engine.frame_seconds)
        guess = len(words) / READ_ALOUD / self.engine.frame_seconds
        said: list[torch.Tensor] = []
        for frame in self.engine.model.speak_stream(words, voice=voice):
            if len(said) == last:
                gr.Warning(f"Only the first {LONGEST_SPEECH:g} s are read: say the rest by itself.", duration=SHOWN)
                break
            said.append(frame)
            if len(said) % 12 == 1:  # of a second
                progress(min(0.99, len(said) / guess), desc="Speaking")
        return pcm(torch.cat(said))

    # ---------------------------------------------------------------- checks

    @readable
    def check_voice(self, voice: str) -> None:
        """A voice file that cannot be used is refused when it is given, not when it is needed."""
        self.engine.voice(voice)

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
            raise ValueError(
                "no recording was given; expected speech: record some and press Stop, or upload a file"
            )
        if not Path(audio).is_file():
            raise ValueError(
                "the recording is not here any more: uploads are deleted after some minutes; give it again"
            )
        samples, rate = read(audio)
        if not len(samples):
            raise ValueError(
                "the recording is empty (0 samples); expected speech: was the recording not started?"
            )
        return samples, rate


def read(path: str) -> tuple[np.ndarray, int]:
    """Samples [N, channels] and their rate."""
    try:
        with soundfile.SoundFile(path) as file:
            check_length(file.frames / file.samplerate)
            if file.frames * file.channels > MOST_SAMPLES:
                raise ValueError(f"the recording has {file.channels} channels of {file.samplerate} samples per second; expected at most "
                                 "2 of 192000: save it in mono, at 48000")
            return file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.SoundFileError:
        pass
    try:  # what telephones record
        with av.open(path, options={"format_whitelist": TELEPHONES}) as file:
            rate = file.streams.audio[0].rate
            to_mono, parts, length = av.AudioResampler("flt", "mono", rate), [np.zeros((1, 0), np.float32)], 0
            for frame in file.decode(audio=0):
                parts += [piece.to_ndarray() for piece in to_mono.resample(frame)]
                length += frame.samples
                check_length(length / rate)
            return np.concatenate(parts, axis=1).T, rate
    except (av.FFmpegError, IndexError) as error:
        raise ValueError("the recording cannot be read; expected sound, for instance WAV, FLAC, Ogg, MP3 or M4A") from error


def check_length(seconds: float) -> None:
    if seconds > LONGEST:
        raise ValueError(f"the recording is {seconds:.0f} s long; expected at most {LONGEST:g} s: cut it, or talk in the live tab")


def audible(sound: tuple[np.ndarray, int]) -> tuple[np.ndarray, int]:
    """The same, or ValueError if there is nothing in it."""
    if np.abs(sound[0]).max() <= SILENCE:
        raise ValueError("the recording is silent; expected audible speech: check the microphone or the file")
    return sound


def pcm(audio: torch.Tensor) -> np.ndarray:
    """Float [N] or [N, 2] -> int16."""
    return (audio.clamp(-1, 1) * 32767).short().numpy()
