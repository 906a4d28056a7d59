"""What keeps the page to itself: no third party's fonts or scripts, no address that the browser would ask."""

import re
from typing import Any

from starlette.datastructures import MutableHeaders

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
    """ASGI middleware: a Content-Security-Policy, and Gradio's page without its links to others."""

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
                body = ELSEWHERE.sub(b"", body)
                MutableHeaders(scope=start)["content-length"] = str(len(body))
                await send(start)
                message = {"type": "http.response.body", "body": body}
            await send(message)

        await self.app(scope, receive, forward)
