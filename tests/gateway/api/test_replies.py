import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from gateway.api.replies import JsonReply, StreamReply


class Wire:
    """Takes what a reply sends; `sent` is set with every body that arrives."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.has_body = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        if message["type"] == "http.response.body":
            self.has_body.set()

    async def receive(self) -> Any:
        raise AssertionError("a reply reads nothing")

    @property
    def bodies(self) -> list[bytes]:
        return [m["body"] for m in self.messages if m["type"] == "http.response.body"]


async def test_a_stream_ends_with_an_empty_last_body() -> None:
    async def frames() -> AsyncGenerator[bytes, None]:
        yield b"a"
        yield b"b"

    wire = Wire()
    await StreamReply(frames(), content_type="text/x")({}, wire.receive, wire.send)  # type: ignore[arg-type]

    assert wire.bodies == [b"a", b"b", b""]
    assert [m.get("more_body") for m in wire.messages[1:]] == [True, True, False]
    assert (b"x-accel-buffering", b"no") in wire.messages[0]["headers"]


async def test_a_silence_is_filled_with_heartbeats() -> None:
    wire = Wire()

    async def frames() -> AsyncGenerator[bytes, None]:
        async with asyncio.timeout(5):
            await wire.has_body.wait()
        yield b"late"

    reply = StreamReply(
        frames(), content_type="text/x", heartbeat=b": ping\n\n", heartbeat_seconds=0.001
    )
    await reply({}, wire.receive, wire.send)  # type: ignore[arg-type]

    assert wire.bodies[0] == b": ping\n\n"
    assert b"late" in wire.bodies
    assert wire.bodies[-1] == b""


@pytest.mark.parametrize("heartbeat", [b"", b": ping\n\n"])
async def test_frames_are_closed_when_sending_stops(heartbeat: bytes) -> None:
    closed = asyncio.Event()
    started = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes, None]:
        try:
            yield b"a"
            started.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    wire = Wire()
    reply = StreamReply(frames(), content_type="text/x", heartbeat=heartbeat)
    num_before = len(asyncio.all_tasks())
    task = asyncio.ensure_future(reply({}, wire.receive, wire.send))  # type: ignore[arg-type]
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert closed.is_set()
    assert len(asyncio.all_tasks()) == num_before
    assert wire.bodies == [b"a"]


async def test_head_gets_the_headers_without_the_body() -> None:
    wire = Wire()

    await JsonReply(b"{}", status=404)({"type": "http", "method": "HEAD"}, wire.receive, wire.send)  # type: ignore[arg-type]

    assert wire.messages[0]["status"] == 404
    assert (b"content-length", b"2") in wire.messages[0]["headers"]
    assert wire.bodies == [b""]
