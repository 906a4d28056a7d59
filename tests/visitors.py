"""Visitors without a browser: each talks to a running Space over WebRTC, asking one question after the other.

    python tests/visitors.py http://127.0.0.1:7860 3 --seconds 60

Prints, for each, how many answers began, how far apart its packets of sound came, and how much of what it said the model was too
slow to hear; the last line is JSON.
"""

import argparse
import asyncio
import contextlib
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer
from websockets.asyncio.client import connect

QUESTIONS = sorted((Path(__file__).resolve().parents[1] / "examples").glob("question*.wav"))


async def connected(address: str, key: str, question: Path, times: list[float]) -> RTCPeerConnection:
    """Sound both ways, as the page's own script opens it; the times at which packets came are added to `times`."""
    line = RTCPeerConnection()
    line.createDataChannel("text")
    line.addTrack(MediaPlayer(str(question), loop=True).audio)

    @line.on("track")
    def hear(track: Any) -> None:
        async def listen() -> None:
            while True:
                await track.recv()
                times.append(time.monotonic())

        line.listening = asyncio.ensure_future(listen())

    await line.setLocalDescription(await line.createOffer())
    body = json.dumps({"sdp": line.localDescription.sdp, "type": "offer", "webrtc_id": key}).encode()
    request = urllib.request.Request(f"{address}/webrtc/offer", body, {"Content-Type": "application/json"})
    reply = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=30).read()))
    await line.setRemoteDescription(RTCSessionDescription(reply["sdp"], reply["type"]))
    return line


async def visit(address: str, index: int, seconds: float) -> dict[str, float]:
    """One visitor, from the place in line to the end."""
    times: list[float] = []
    answers, skipped, step, speaking, line = 0, 0, 0.0, False, None
    async with connect(address.replace("http", "ws", 1) + "/live") as control:
        await control.send(json.dumps({"type": "start"}))
        end = None
        while end is None or time.monotonic() < end:
            message = json.loads(await control.recv())
            if message["type"] == "ready":
                line = await connected(address, message["id"], QUESTIONS[index % len(QUESTIONS)], times)
                end = time.monotonic() + seconds
            elif message["type"] == "frame":
                answers += message["speaking"] and not speaking
                speaking = message["speaking"]
                skipped, step = message.get("skipped", skipped), message.get("p95", step)
            elif message["type"] in ("ended", "problem"):
                raise RuntimeError(f"visitor {index}: {message}")
    line.listening.cancel()
    with contextlib.suppress(Exception):
        await line.close()
    gaps = np.diff([at for at in times if at > times[0] + 1]) * 1000
    return {"answers": answers, "gap_p95_ms": float(np.percentile(gaps, 95)), "step_p95_ms": step, "skipped_ms": 20 * skipped}


async def visits(address: str, count: int, seconds: float) -> list[dict[str, float]]:
    return await asyncio.gather(*(visit(address, index, seconds) for index in range(count)))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("address")
    p.add_argument("count", type=int)
    p.add_argument("--seconds", type=float, default=60)
    args = p.parse_args()
    found = asyncio.run(visits(args.address.rstrip("/"), args.count, args.seconds))
    for index, figures in enumerate(found):
        print(f"visitor {index}: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
