"""What handlers return: plain ASGI responses, written without Litestar's layers between.

Litestar's stream response does not close its iterator when the client hangs
up, and its server-sent events pass through a StringIO each (measured in
docs/experiments.md). These write the bytes that the dialect made.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from operator import methodcaller

from litestar.types import Receive, Scope, Send

HEARTBEAT_SECONDS = 15.0
# From here on, a whole answer may wait for its client in nginx's memory and not in ours.
LARGE_BYTES = 64 * 1024

# What a browser is told about every answer that does not say otherwise itself: it is
# no page, shows nothing, is not kept, and tells nobody where it came from.
SECURITY_HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_encode = methodcaller("encode", "latin-1")


class JsonReply:
    """A whole answer, already encoded."""

    def __init__(
        self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.body = body
        self.status = status
        self.headers = dict(headers or {})

    def to_asgi_response(self, **_: object) -> "JsonReply":
        """What Litestar calls on the answer of an exception handler."""
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send status, headers and body."""
        size = len(self.body)
        headers = {"content-type": "application/json", "content-length": str(size)}
        if size > LARGE_BYTES:
            headers["x-accel-buffering"] = "yes"
        headers |= self.headers
        await send(
            {"type": "http.response.start", "status": self.status, "headers": encoded(headers)}
        )
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        body = b"" if is_head else self.body
        await send({"type": "http.response.body", "body": body, "more_body": False})


class StreamReply:
    """A stream of frames, each sent as it comes; `heartbeat` fills silences. One without a
    `content_type` has nothing to say what it is, or nothing at all (204).

    Closing is not left to the garbage collector: the frames end when sending
    ends, whatever the reason.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        content_type: str,
        heartbeat: bytes = b"",
        headers: Mapping[str, str] | None = None,
        status: int = 200,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.frames = frames
        self.headers = {"cache-control": "no-cache", "x-accel-buffering": "no", **(headers or {})}
        if content_type:
            self.headers["content-type"] = content_type
        self.heartbeat = heartbeat
        self.status = status
        self._heartbeat_seconds = heartbeat_seconds
        self._last_sent_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every frame, then the end."""
        async with aclosing(self.frames):
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status,
                    "headers": encoded(self.headers),
                }
            )
            beating = asyncio.create_task(self._beat(send)) if self.heartbeat else None
            try:
                async for frame in self.frames:
                    self._last_sent_at = time.monotonic()
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            finally:
                if beating is not None:
                    beating.cancel()
                    await asyncio.gather(beating, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _beat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            if time.monotonic() - self._last_sent_at >= self._heartbeat_seconds:
                await send(
                    {"type": "http.response.body", "body": self.heartbeat, "more_body": True}
                )


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI has them."""
    return [*zip(map(_encode, headers), map(_encode, headers.values()), strict=True)]
