"""The model, loaded as anybody would load it, and what the Space asks of it."""

import base64
import binascii
import tempfile
import threading
from pathlib import Path
from typing import Any

from .reference import warm_up
from .worker import Worker, load

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LARGEST_VOICE = 200_000  # bytes; a voice of 30 s takes 50,000


class Engine:
    """The model twice: here for what visitors upload, and in a process of its own for live conversations.

    Args:
        model_id: a folder, or a repository on the Hub.
        conversations: how many may be live at once.
    """

    def __init__(self, model_id: str, conversations: int) -> None:
        self.worker = Worker(model_id, conversations)  # loads meanwhile
        try:
            self._load(model_id)
            self.worker.ready.result()
        except BaseException:
            self.worker.stop()
            raise
        threading.Thread(target=warm_up, name="warm up", daemon=True).start()  # last: a process that ends meanwhile would crash

    def _load(self, model_id: str) -> None:
        self.model: Any = load(model_id)
        self.rate: int = self.model.config.sampling_rate
        self.frame_seconds = self.model.config.frame_size / self.rate
        self.voices = {
            path.stem.removeprefix("voice_"): self.model.voice(str(path))
            for path in sorted(EXAMPLES.glob("voice_*.wav"))
        }

    def voice(self, path: str | Path | None, name: str | None = None) -> Any:
        """A Voice from its file, or a bundled one; None without either."""
        if not path:
            return self.bundled(name)
        if not Path(path).is_file():
            raise ValueError("the voice file is not here any more: files are deleted after some minutes; give it again")
        try:
            return self.model.Voice.load(path).check(self.model.config)
        except ValueError as error:  # visitors do not know the server's paths
            raise ValueError(str(error).replace(str(path), "the voice file")) from error

    def bundled(self, name: str | None) -> Any:
        """A Voice by its name; None without one."""
        if name and name not in self.voices:
            raise ValueError(f"the voice is {name!r}; expected one of {', '.join(map(repr, self.voices))}")
        return self.voices.get(name)

    def voice_of_page(self, choice: Any) -> Any:
        """What the live tab sends: {"name": a bundled voice}, {"file": a file in base64}, or nothing."""
        choice = choice if isinstance(choice, dict) else {}
        name, text = str(choice.get("name") or ""), str(choice.get("file") or "")
        if not text:
            return self.bundled(name)
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(
                "the voice is not base64; expected a voice file, written by Voice.save"
            ) from error
        if len(data) > LARGEST_VOICE:
            raise ValueError(
                f"the voice takes {len(data)} bytes; expected at most {LARGEST_VOICE}: "
                "is it a recording? clone it first"
            )
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(data)
            file.flush()
            return self.voice(file.name)
