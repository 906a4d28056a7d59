"""What keeps the page to itself: no third party's fonts or scripts, no address that the browser would ask, no request too large."""

import re
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

NO_SCRIPT = b"<noscript><p>MichiAI needs JavaScript, of this page alone. Allow it, and load the page again.</p></noscript>"
LARGEST_BODY = 2**20  # bytes; a voice in JSON takes 270,000 at most, an offer of WebRTC some thousands
LARGEST_FILE = 20 * 2**20  # bytes of an upload
FRAMING = 2**20  # bytes around the file in an upload's form
UPLOAD = "/gradio_api/upload"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' ws: wss: data: blob:; "
    "worker-src 'self' blob:"
)
ELSEWHERE = re.compile(
    rb'<(?:link|meta|script)[^>]*(?:href|src|content)="https?://[^"]*"[^>]*>(?:\s*</script>)?'
)


class OwnOriginOnly:
    """ASGI middleware: a Content-Security-Policy, and Gradio's page without links to others, and with a word where scripts are off."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_page = scope["path"] == "/" and scope["method"] == "GET"
        start: dict = {}
        body = b""

        async def forward(message: dict) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["content-security-policy"] = POLICY
                headers["referrer-policy"] = "no-referrer"
                if is_page:
                    start = message
                    return
            elif is_page:
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                body = ELSEWHERE.sub(b"", body).replace(b"</body>", NO_SCRIPT + b"</body>")
                MutableHeaders(scope=start)["content-length"] = str(len(body))
                await send(start)
                message = {"type": "http.response.body", "body": body}
            await send(message)

        await self.app(scope, receive, forward)


class LimitedBodies:
    """ASGI middleware: status 413 for a request with a larger body than any that the page or its API sends, before it is in memory."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = LARGEST_FILE + FRAMING if scope["path"] == UPLOAD else LARGEST_BODY
        told, size = Headers(scope=scope).get("content-length", ""), 0

        async def limited() -> dict:
            nonlocal size
            message: dict = {} if told.isdecimal() and int(told) > most else await receive()
            size += len(message.get("body", b""))
            if not message or size > most:  # what arrives without its length is counted
                raise HTTPException(413, f"the request has {told or f'more than {most}'} bytes; expected at most {most}: give recordings "
                                         f"and voices as files, which go to {UPLOAD} and may have {LARGEST_FILE}, and cut longer ones")
            return message

        await self.app(scope, limited, send)
