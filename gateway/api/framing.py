"""Frames of streamed answers: server-sent events (WHATWG HTML 9.2) and NDJSON lines.

`data:` lines end in LF alone; JSON written by msgspec holds no raw line break,
so one object is always one line.
"""

SSE_TYPE = "text/event-stream; charset=utf-8"
SSE_DONE = b"data: [DONE]\n\n"
SSE_HEARTBEAT = b": ping\n\n"
NDJSON_TYPE = "application/x-ndjson"


def sse(data: bytes, *, event: str | None = None) -> bytes:
    """One event holding one line of data."""
    if event is None:
        return b"data: " + data + b"\n\n"
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def ndjson(data: bytes) -> bytes:
    """One line."""
    return data + b"\n"
