"""The Space: talk to MichiAI in the browser.

python app.py          # http://127.0.0.1:7860; docs/serving.md lists the environment variables
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
FILES = tempfile.TemporaryDirectory(prefix="michiai-")  # visitors' files; gone with this process, also at SIGTERM
os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir = FILES.name  # the latter: uploads while they come in

import gradio as gr  # noqa: E402 - reads the environment
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402

from space.engine import Engine  # noqa: E402
from space.guard import LARGEST_FILE, LimitedBodies, OwnOriginOnly  # noqa: E402
from space.live import Live  # noqa: E402
from space.page import build  # noqa: E402
from space.settings import Settings  # noqa: E402


def make_app(settings: Settings) -> FastAPI:
    """The whole site."""
    engine = Engine(settings.model_id, settings.max_conversations)
    app = FastAPI(title="MichiAI", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LimitedBodies)
    app.add_middleware(OwnOriginOnly)
    Live(engine, settings).mount(app)
    page = build(engine, settings.upload_seconds)
    threading.Thread(target=sweep, args=(settings.upload_seconds,), name="sweep", daemon=True).start()
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        max_file_size=LARGEST_FILE,
        ssr_mode=False,
        show_error=True,
    )


def sweep(seconds: int) -> None:
    """Delete what is left, after so long, of uploads that were broken off: Gradio deletes only those that it has whole."""
    while True:
        time.sleep(min(60, seconds))
        for path in Path(FILES.name).iterdir():  # Gradio moves whole ones into folders
            with contextlib.suppress(OSError):  # whole by now
                if path.is_file() and time.time() - path.stat().st_mtime > seconds:
                    path.unlink()


def end(*_: object) -> None:
    """What the system's way to end a process would leave out."""
    FILES.cleanup()
    os._exit(0)  # Python's own way takes seconds for so many modules


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        sys.exit(f"app.py: {error}")
    print("MichiAI: getting ready, which takes up to half a minute, so that no visitor waits later", flush=True)
    try:
        app = make_app(settings)
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: the checkpoint is {settings.model_id!r}; expected a folder of one or a repository of the Hub ({error})")
    print(
        f"MichiAI: http://{settings.host}:{settings.port} (at most {settings.max_conversations} at once)",
        flush=True,
    )
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        ws_max_size=2**20,
        ws_ping_interval=5,
        ws_ping_timeout=10,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
