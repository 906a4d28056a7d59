"""What surrounds the Space's page: settings, and the guard against third parties."""

import asyncio

import pytest

pytest.importorskip("gradio", reason="the Space's packages are not installed: pip install -e .[app]")

from helpers import ROOT  # noqa: E402
from space.guard import ELSEWHERE, OwnOriginOnly  # noqa: E402
from space.settings import Settings  # noqa: E402


def test_settings_come_from_the_environment(monkeypatch) -> None:
    for name in (
        "MODEL_ID",
        "MAX_CONVERSATIONS",
        "MAX_SECONDS",
        "PORT",
        "HOST",
        "SPACE_ID",
        "UPLOAD_SECONDS",
    ):
        monkeypatch.delenv(name, raising=False)
    plain = Settings.from_environment()
    assert plain == Settings() and plain.model_id == str(ROOT)
    monkeypatch.setenv("SPACE_ID", "me/s")
    monkeypatch.setenv("MAX_SECONDS", "60")
    assert Settings.from_environment().host == "0.0.0.0" and Settings.from_environment().max_seconds == 60
    monkeypatch.setenv("MAX_CONVERSATIONS", "many")
    with pytest.raises(ValueError, match="MAX_CONVERSATIONS is 'many'; expected a number from 1 to 1000"):
        Settings.from_environment()


def test_the_page_is_freed_of_third_parties() -> None:
    page = (
        b'<head><link rel="preconnect" href="https://fonts.googleapis.com" /><meta property="og:image" content="https://x.y/z.png">'
        b'<script src="https://cdnjs.cloudflare.com/a.js" async></script><script>window.a = 1</script>'
        b'<link href="/theme.css"></head>'
    )

    async def app(scope, receive, send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", str(len(page)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": page[:50], "more_body": True})
        await send({"type": "http.response.body", "body": page[50:]})

    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(OwnOriginOnly(app)({"type": "http", "path": "/", "method": "GET"}, None, send))
    assert sent[1]["body"] == b'<head><script>window.a = 1</script><link href="/theme.css"></head>'
    headers = dict(sent[0]["headers"])
    assert (
        int(headers[b"content-length"]) == len(sent[1]["body"])
        and b"default-src 'self'" in headers[b"content-security-policy"]
    )
    assert not ELSEWHERE.search(b'<a href="https://github.com">a link that is not followed by itself</a>')
