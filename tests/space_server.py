"""A running Space, or another server, for tests: in a process of its own, on a free port."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import ROOT

START = 240  # seconds; imports alone take long on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(log: Path, command: tuple[str, ...] = ("app.py",), path: str = "", **environment: str) -> Iterator[str]:
    """Start the Space with these environment variables; gives its address, once `path` of it answers."""
    port = free_port()
    env = {k: v for k, v in os.environ.items() if k not in ("SPACE_ID", "PYTHONPATH")}
    env |= {"PORT": str(port), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(START * 2):
            try:
                urllib.request.urlopen(address + path, timeout=60).read()
                break
            except OSError:
                assert server.poll() is None, log.read_text()[-3000:]
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
