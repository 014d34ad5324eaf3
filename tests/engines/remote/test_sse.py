import pytest

from engines.remote.sse import EventSplitter, EventTooLong

STREAM = b": hello\n\ndata: one\n\nevent: x\ndata: two\ndata:  2\nid: 4\n\n:ping\n\ndata:three\n\n"
DATA = [b"one", b"two\n 2", b"three"]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(ends: bytes, size: int) -> None:
    stream = STREAM.replace(b"\n", ends)
    events = EventSplitter(1000)

    found = [
        data for at in range(0, len(stream), size) for data in events.feed(stream[at : at + size])
    ]

    assert found == DATA
    assert events.rest.strip() == b""


def test_what_is_not_finished_stays_inside() -> None:
    events = EventSplitter(1000)

    assert events.feed(b"data: a\n\ndata: b") == [b"a"]
    assert events.rest == b"data: b"
    assert events.feed(b"c\n\n") == [b"bc"]


@pytest.mark.parametrize("piece", [b"x" * 101, b"data: " + b"x" * 101 + b"\n\n"])
def test_an_event_that_is_too_long_is_refused(piece: bytes) -> None:
    with pytest.raises(EventTooLong):
        EventSplitter(100).feed(piece)


def test_a_line_that_never_ends_is_refused_when_it_is_too_long() -> None:
    events = EventSplitter(1000)

    with pytest.raises(EventTooLong):
        for _ in range(200):
            events.feed(b"data: 1234")


def test_small_pieces_of_one_long_event_are_each_looked_at_once() -> None:
    events = EventSplitter(10_000_000)
    looked_at: list[int] = []

    class Counting(bytearray):
        def rfind(self, sub: bytes, start: int = 0) -> int:  # type: ignore[override]
            looked_at.append(len(self) - start)
            return super().rfind(sub, start)

    events._held = Counting()  # type: ignore[attr-defined]
    for _ in range(1000):
        events.feed(b"x" * 100)

    assert sum(looked_at) <= 1000 * 102


def test_whole_events_keep_all_their_lines() -> None:
    blocks = EventSplitter(1000).feed_blocks(b"event: a\ndata: {}\n\n: c\n\nevent: b\ndata: {}\n\n")

    assert blocks == [b"event: a\ndata: {}", b": c", b"event: b\ndata: {}"]
