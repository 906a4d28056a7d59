"""A visitor behind a strict network: all sound through a TURN relay, a real one (coturn) on this machine.

Only where the credentials come from is of the test: on Spaces they are Cloudflare's, which needs a network and a token.
"""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

from browser import NEEDS_CHROMIUM, browser, open_page, recorded, state, talk
from space_server import free_port, running

TURNSERVER = shutil.which("turnserver")
pytestmark = [
    NEEDS_CHROMIUM,
    pytest.mark.skipif(TURNSERVER is None, reason="coturn is not installed: apt-get install coturn"),
]
SERVE = """
import json, os
import app, space.live
async def credentials(ttl): return json.loads(os.environ["RELAYS"])
space.live.get_cloudflare_turn_credentials_async = credentials
app.main()
"""
RELAY_ONLY = """;{ const Direct = window.RTCPeerConnection;
window.RTCPeerConnection = function (config) { return new Direct({ ...config, iceTransportPolicy: "relay" }); };
window.RTCPeerConnection.prototype = Direct.prototype; }"""
PATH = """async () => { const all = [...(await window.__ear.pc.getStats()).values()];
const pair = all.find(s => s.type === "candidate-pair" && s.state === "succeeded" && s.nominated);
return { server: window.__ear.pc.remoteDescription.sdp.includes("typ relay"),
local: all.find(s => s.id === pair.localCandidateId).candidateType,
received: all.find(s => s.type === "inbound-rtp").packetsReceived, sent: all.find(s => s.type === "outbound-rtp").packetsSent }; }"""


@pytest.fixture(scope="module")
def relays(tmp_path_factory) -> Iterator[dict]:
    """A running relay, in the form in which Cloudflare names its own."""
    port, log = free_port(), tmp_path_factory.mktemp("turn") / "log.txt"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: which of our addresses would be used
        own = probe.getsockname()[0]
    options = ["--no-cli", "--no-tls", "--no-dtls", "--no-rfc5780", "--lt-cred-mech", "--realm=michiai", "--user=visitor:secret",
               f"--listening-port={port}", f"--listening-ip={own}", f"--relay-ip={own}", f"--pidfile={log.with_name('pid')}",
               f"--userdb={log.with_name('users')}", "--log-file=stdout"]  # fmt: skip
    with log.open("w") as out, subprocess.Popen([TURNSERVER, "-n", *options], stdout=out, stderr=subprocess.STDOUT) as relay:
        yield {"iceServers": [{"urls": [f"stun:{own}:{port}"]},
                              {"urls": [f"turn:{own}:{port}?transport=udp"], "username": "visitor", "credential": "secret"}]}
        relay.terminate()


def test_a_conversation_goes_through_the_relay(relays: dict, tmp_path: Path) -> None:
    spaces = {"RELAYS": json.dumps(relays), "SPACE_ID": "me/michiai", "HOST": "127.0.0.1"}
    with running(tmp_path / "log.txt", ("-c", SERVE), **spaces) as address, browser() as chromium:
        page = open_page(chromium, address, script=RELAY_ONLY)
        talk(page)
        page.wait_for_timeout(3000)
        assert state(page) == "talking"
        path, (audio, _) = page.evaluate(PATH), recorded(page)
        print(path, page.inner_text("#michi-line"))
        assert path["local"] == "relay" and path["server"] and path["received"] > 50 and path["sent"] > 50, path
        assert len(audio) > 48_000 and "WebSocket" not in page.inner_text("#michi-line")
        page.click("#michi-talk")
