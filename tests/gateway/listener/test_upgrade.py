import httptools
import pytest

from gateway.listener.upgrade import RestOfMessage

CHUNKED = [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
WHOLE = b"3\r\nabc\r\n2\r\nde\r\n0\r\nx: y\r\n\r\n"
BEHIND = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nnot"


class Taker:
    def __init__(self) -> None:
        self.body = b""
        self.num_messages = 0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.num_messages += 1


def begun(
    headers: list[tuple[bytes, bytes]], method: bytes = b"POST"
) -> tuple[Taker, RestOfMessage]:
    rest = RestOfMessage(taker := Taker(), headers, method)
    rest.begin()
    return taker, rest


@pytest.mark.parametrize("at", range(len(WHOLE + BEHIND)))
def test_a_body_is_the_same_wherever_its_packets_are_cut(at: int) -> None:
    for headers, sent in ((CHUNKED, WHOLE), ([(b"content-length", b"5")], b"abcde")):
        taker, rest = begun(headers)

        for piece in ((sent + BEHIND)[:at], (sent + BEHIND)[at:], BEHIND):
            rest.feed_data(piece)

        assert (taker.body, taker.num_messages, rest.is_complete) == (b"abcde", 1, True)


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        ([], b"GET"),
        ([(b"content-length", b"0")], b"POST"),
        ([(b"content-length", b"3")], b"CONNECT"),
    ],
)
def test_without_a_body_it_is_complete_at_once(
    headers: list[tuple[bytes, bytes]], method: bytes
) -> None:
    taker, rest = begun(headers, method)
    rest.feed_data(BEHIND)

    assert (taker.body, taker.num_messages, rest.is_complete) == (b"", 1, True)


def test_a_body_that_is_none_is_refused() -> None:
    taker, rest = begun(CHUNKED)

    with pytest.raises(httptools.HttpParserError):
        rest.feed_data(b"-1\r\nx\r\n0\r\n\r\n")

    assert (taker.num_messages, rest.is_complete) == (0, False)
