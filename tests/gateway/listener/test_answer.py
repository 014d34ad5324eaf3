"""What goes over the wire for what an application sends, and what is no answer at all."""

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.listener.answer import Answer


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


class Stage:
    """A cycle of uvicorn's with our answer, over such a wire."""

    def __init__(self, *, method: str = "GET", keep_alive: bool = True) -> None:
        self.wire = Wire()
        self.flow = FlowControl(self.wire)
        self.num_ended = 0
        logger = logging.getLogger("test")
        self.cycle = RequestResponseCycle(
            scope=cast(Any, {"type": "http", "method": method}),
            transport=self.wire,
            flow=self.flow,
            logger=logger,
            access_logger=logger,
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._ended,
        )
        self._answer = Answer(self.cycle, asyncio.get_running_loop())

    async def start(self, status: int = 200, **headers: str) -> None:
        """Send the head; names have underscores for hyphens."""
        given = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": given})

    async def body(self, data: bytes, *, more: bool = False) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def send(self, message: Any) -> None:
        await self._answer.send(message)

    def _ended(self) -> None:
        self.num_ended += 1


async def test_a_whole_answer_is_one_write() -> None:
    stage = Stage()

    await stage.start(content_length="5", X_Request_Id="a")
    assert stage.wire.writes == []
    await stage.body(b"hello")

    assert stage.wire.writes == [
        b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 5\r\nx-request-id: a\r\n\r\nhello"
    ]
    assert (stage.cycle.response_complete, stage.num_ended) == (True, 1)
    assert not stage.wire.is_closed


async def test_a_head_whose_body_takes_its_time_goes_ahead() -> None:
    stage = Stage()

    await stage.start(content_type="text/event-stream")
    await asyncio.sleep(0)
    await stage.body(b"data: 1\n\n", more=True)
    await stage.body(b"", more=True)
    await stage.body(b"data: 2\n\n", more=True)
    await stage.body(b"")

    head, *chunks = stage.wire.writes
    assert head.endswith(b"\r\ntransfer-encoding: chunked\r\n\r\n")
    assert chunks == [b"9\r\ndata: 1\n\n\r\n", b"9\r\ndata: 2\n\n\r\n", b"0\r\n\r\n"]


async def test_the_first_of_a_stream_goes_with_its_head() -> None:
    stage = Stage()

    await stage.start()
    await stage.body(b"first", more=True)
    await asyncio.sleep(0)

    assert len(stage.wire.writes) == 1
    assert stage.wire.writes[0].endswith(b"\r\n\r\n5\r\nfirst\r\n")


async def test_an_answer_to_head_has_a_length_and_no_body() -> None:
    stage = Stage(method="HEAD")

    await stage.start(content_length="5")
    await stage.body(b"hello")

    assert stage.wire.writes[0].endswith(b"content-length: 5\r\n\r\n")
    assert stage.cycle.response_complete


@pytest.mark.parametrize("status", [204, 304])
async def test_some_answers_have_no_body_and_no_framing(status: int) -> None:
    stage = Stage()

    await stage.start(status)
    await stage.body(b"")

    assert b"transfer-encoding" not in stage.wire.writes[0]
    assert stage.wire.writes[0].endswith(b"\r\n\r\n")


async def test_a_connection_that_ends_says_so_and_is_closed() -> None:
    stage = Stage(keep_alive=False)

    await stage.start(content_length="0")
    await stage.body(b"")

    assert stage.wire.writes[0].count(b"connection: close\r\n") == 1
    assert stage.wire.is_closed


async def test_an_application_may_end_the_connection() -> None:
    stage = Stage()

    await stage.start(content_length="0", connection="Close, x")
    await stage.body(b"")

    assert stage.wire.writes[0].count(b"connection: Close, x\r\n") == 1
    assert stage.wire.is_closed
    assert not stage.cycle.keep_alive


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "a\x1fb", "\r\n\r\nbody"])
async def test_a_value_cannot_become_a_header_or_a_body(value: str) -> None:
    stage = Stage()

    with pytest.raises(RuntimeError, match="in its value"):
        await stage.start(x_note=value)

    assert stage.wire.writes == []


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xe4"])
async def test_a_name_that_is_none_is_refused(name: bytes) -> None:
    stage = Stage()

    with pytest.raises(RuntimeError, match="a name that is none"):
        await stage.send(
            {"type": "http.response.start", "status": 200, "headers": [(name, b"value")]}
        )


async def test_two_names_cannot_be_given_as_one() -> None:
    stage = Stage()
    headers = [(b"a\nb", b"value")]

    with pytest.raises(RuntimeError, match="line break"):
        await stage.send({"type": "http.response.start", "status": 200, "headers": headers})

    assert stage.wire.writes == []


async def test_each_of_two_headers_of_one_name_counts() -> None:
    stage = Stage()
    headers = [(b"connection", b"close"), (b"content-length", b"0"), (b"connection", b"x")]

    await stage.send({"type": "http.response.start", "status": 200, "headers": headers})
    await stage.body(b"")

    assert stage.wire.writes[0].count(b"connection: ") == 2
    assert stage.wire.is_closed


async def test_a_tab_and_latin_letters_may_stand_in_a_value() -> None:
    stage = Stage()

    await stage.start(x_note="a\tb")
    await stage.body(b"")

    assert b"x-note: a\tb\r\n" in stage.wire.writes[0]


async def test_a_body_of_another_length_than_was_said_is_an_error() -> None:
    longer, shorter = Stage(), Stage()
    await longer.start(content_length="2")
    await shorter.start(content_length="2")

    with pytest.raises(RuntimeError, match="longer than its content-length"):
        await longer.body(b"abc")
    with pytest.raises(RuntimeError, match="shorter than its content-length"):
        await shorter.body(b"a")

    assert not shorter.cycle.response_complete


async def test_messages_out_of_turn_are_an_error() -> None:
    stage = Stage()
    with pytest.raises(RuntimeError, match="out of turn"):
        await stage.body(b"a")
    await stage.start(content_length="0")
    with pytest.raises(RuntimeError, match="out of turn"):
        await stage.start()
    await stage.body(b"")
    with pytest.raises(RuntimeError, match="out of turn"):
        await stage.body(b"")


async def test_a_client_that_is_gone_is_sent_nothing() -> None:
    stage = Stage()
    stage.cycle.disconnected = True

    await stage.start()
    await stage.body(b"a")

    assert stage.wire.writes == []


async def test_a_client_that_leaves_right_after_the_head_is_sent_nothing() -> None:
    stage = Stage()
    await stage.start()
    stage.cycle.disconnected = True

    await asyncio.sleep(0)

    assert stage.wire.writes == []


async def test_who_does_not_read_is_waited_for() -> None:
    stage = Stage()
    await stage.start()
    stage.flow.pause_writing()

    sending = asyncio.create_task(stage.body(b"a", more=True))
    await asyncio.sleep(0)
    assert not sending.done()
    stage.flow.resume_writing()
    await sending

    assert stage.wire.writes[-1].endswith(b"1\r\na\r\n")
