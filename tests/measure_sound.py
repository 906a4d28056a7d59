"""How steady is the sound? Chromium, the Space and its model, for a minute: python tests/measure_sound.py

Measured with the model at work on every frame, while what goes out is what came in, so that one recording of
microphone and loudspeaker in one AudioContext tells the whole delay (envelopes are correlated over 4 s):
- gaps between packets as they reach the browser, before its jitter buffer (encoded frames in a worker);
- delay from microphone to loudspeaker after 10 s and at the end.
Needs a machine that does nothing else; the last line is JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

MEASURE = (Path(__file__).parent / "measure_sound.js").read_text(encoding="utf-8")


class Echo:
    """Gives back what came in, in place of what the model made of it."""

    def __init__(self) -> None:
        self.kept = np.zeros(0, np.float32)

    def __call__(self, frames: list, pcm: np.ndarray, step: int) -> list:
        self.kept = np.concatenate(
            [self.kept, pcm[: len(pcm) // step * step].reshape(-1, step).mean(1).astype(np.float32) / 32768]
        )
        out = []
        for frame in frames:
            size = len(frame.audio)
            out.append(replace(frame, audio=self.kept[:size].copy()))
            self.kept = self.kept[size:]
        return out


def serve() -> None:
    from space.worker import Worker

    compute, echoes = Worker.push, defaultdict(Echo)

    async def push(self: Worker, session: int, pcm: np.ndarray, rate: int) -> list:
        return echoes[session](await compute(self, session, pcm, rate), pcm, rate // 16_000)

    Worker.push = push
    import app

    app.main()


def delay(levels: np.ndarray, at: float, step: float) -> float:
    """Seconds from microphone to loudspeaker around `at`, from energies [N, 2] of `step` s."""
    first, n = int(at / step), int(4 / step)
    mic = np.sqrt(levels[first : first + n, 0])
    best, found = -1.0, 0.0
    for lag in range(int(1.5 / step)):
        out = np.sqrt(levels[first + lag : first + lag + n, 1])
        if len(out) < n:
            break
        score = float(np.corrcoef(mic, out)[0, 1]) if out.std() > 0 else -1.0
        if score > best:
            best, found = score, lag * step
    return found if best > 0.5 else float("nan")


def others(address: str, count: int, seconds: float) -> subprocess.Popen:
    """So many visitors for so long."""
    command = [sys.executable, str(ROOT / "tests" / "visitors.py"), address, str(count), "--seconds", str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--others", type=int, default=0, help="visitors without a browser who talk meanwhile (tests/visitors.py)")
    p.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.serve:
        return serve()
    import soundfile

    import browser
    from space_server import running

    speech, rate = soundfile.read(ROOT / "examples" / "voice_ada.wav", dtype="float32")
    rng, parts, total = np.random.default_rng(0), [], 0.0
    while total < args.seconds + 8:  # pauses of their own, so that a delay cannot be mistaken for another
        gap = float(rng.uniform(0.2, 0.9))
        parts += [speech[int(rng.uniform(0, 1.5) * rate) :], np.zeros(int(gap * rate), np.float32)]
        total += len(parts[-2]) / rate + gap
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder) / "log", ("tests/measure_sound.py", "--serve"), MAX_CONVERSATIONS=str(1 + args.others)) as address,
        others(address, args.others, args.seconds + 30) if args.others else nullcontext() as visitors,
    ):
        with browser.browser() as chromium:
            page = browser.open_page(chromium, address, mouth=True, script=MEASURE)
            browser.talk(page, 60)
            browser.say(page, np.concatenate(parts), rate)
            page.wait_for_timeout((args.seconds + 6) * 1000)
            times = np.array(page.evaluate("window.__times()"))
            levels = np.array(page.evaluate("window.__levels"))
            shown = {name: page.inner_text(f"#michi-{name}") for name in ("step", "store", "trip", "line")}
            page.click("#michi-talk")
        if visitors:
            print(visitors.communicate()[0], end="")
    times = times[times > times[0] + 1000]
    gaps = np.diff(times[times < times[0] + args.seconds * 1000])
    step = 128 / 48_000
    early, late = delay(levels, 10, step), delay(levels, min(args.seconds, len(levels) * step - 6), step)
    figures = {
        "packets": len(gaps) + 1,
        "gap_p50_ms": float(np.percentile(gaps, 50)),
        "gap_p95_ms": float(np.percentile(gaps, 95)),
        "gap_max_ms": float(gaps.max()),
        "delay_10_s_ms": 1000 * early,
        "delay_end_ms": 1000 * late,
        "delay_growth_ms": 1000 * (late - early),
    }
    print("on the page:", shown)
    for name, value in figures.items():
        print(f"{name:>16}  {value:8.1f}")
    print(json.dumps(figures | {"seconds": args.seconds, "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
