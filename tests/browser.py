"""Chromium for tests: a microphone that says a WAV file, and an ear that records what the page plays."""

import base64
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")
ARGS = [
    "--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
RATE = 48_000

HOOKS = (Path(__file__).parent / "browser.js").read_text(encoding="utf-8")


@contextmanager
def browser(microphone: Path | None = None) -> Iterator[Any]:
    """A Chromium; its microphone says `microphone` once, or beeps."""
    from playwright.sync_api import sync_playwright

    args = ARGS + ([f"--use-file-for-fake-audio-capture={microphone}%noloop"] if microphone else [])
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=args)
        try:
            yield chromium
        finally:
            chromium.close()


def open_page(chromium: Any, address: str, *, mouth: bool = False, script: str = "", **context: Any) -> Any:
    """A page of its own context, ready to talk; errors of its scripts are collected in `page.problems`."""
    page = chromium.new_context(permissions=["microphone"], **context).new_page()
    page.problems, page.elsewhere = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on(
        "request",
        lambda r: (
            page.elsewhere.append(r.url)
            if not r.url.startswith((address, "data:", "blob:", "ws://127.0.0.1"))
            else None
        ),
    )
    page.add_init_script(HOOKS + (";window.__mouth.use();" if mouth else "") + script)
    page.goto(address, wait_until="domcontentloaded", timeout=120_000)
    page.wait_for_function("window.michiai", timeout=120_000)
    return page


def state(page: Any) -> str:
    return page.get_attribute("#michi", "data-state")


def talk(page: Any, timeout: float = 40) -> None:
    page.click("#michi-talk")
    wait_state(page, "talking", timeout)


def wait_state(page: Any, wanted: str, timeout: float = 40) -> None:
    page.wait_for_function(
        f"document.getElementById('michi').dataset.state === '{wanted}'", timeout=timeout * 1000
    )


def words(page: Any, who: str) -> str:
    """All that "user" or "own" said, from the transcript."""
    return " ".join(page.locator(f".utterance .{who} .words").all_inner_texts())


def wav_of(audio: np.ndarray, rate: int) -> str:
    """16 bit WAV in base64."""
    file = io.BytesIO()
    soundfile.write(file, audio, rate, subtype="PCM_16", format="WAV")
    return base64.b64encode(file.getvalue()).decode()


def say(page: Any, audio: np.ndarray, rate: int) -> float:
    """Speak into the page's microphone now; gives the browser's time in ms."""
    return page.evaluate("wav => window.__mouth.say(wav)", wav_of(audio, rate))


def recorded(page: Any) -> tuple[np.ndarray, float]:
    """What the page has played so far: float32 [N] at RATE, and the browser's time of its start in ms."""
    text = page.evaluate("window.__ear.take()")
    audio = np.frombuffer(base64.b64decode(text), np.int16).astype(np.float32) / 32768
    return audio, page.evaluate("window.__ear.at") or 0.0
