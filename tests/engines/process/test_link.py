import asyncio
import socket

import structlog

from engines.process.link import Link
from engines.process.wire import Batch, Cancel, FromChild, Ready, ToChild


async def test_frames_go_both_ways_until_one_side_closes() -> None:
    at_parent: asyncio.Queue[FromChild] = asyncio.Queue()
    at_child: asyncio.Queue[ToChild] = asyncio.Queue()
    parent = Link(FromChild, at_parent.put_nowait)
    child = Link(ToChild, at_child.put_nowait)
    ours, theirs = socket.socketpair()
    await parent.connect(ours)
    await child.connect(theirs)

    parent.send(Cancel(3))
    child.send(Ready())
    child.send(Batch([(3, "word")]))

    assert await at_child.get() == Cancel(3)
    assert [await at_parent.get(), await at_parent.get()] == [Ready(), Batch([(3, "word")])]
    assert parent.num_received == 2
    child.close()
    await parent.lost.wait()
    await child.lost.wait()
    parent.send(Cancel(4))  # dropped: its call has been told otherwise


async def test_bytes_that_are_no_frames_end_the_link() -> None:
    parent: Link[FromChild] = Link(FromChild, lambda frame: None)
    ours, theirs = socket.socketpair()
    with theirs, structlog.testing.capture_logs() as logs:
        await parent.connect(ours)

        theirs.send(b"Segmentation fault (core dumped)\n")
        await parent.lost.wait()

    assert [line["event"] for line in logs] == ["engine_link_broken"]


async def test_what_the_other_side_does_not_read_is_counted() -> None:
    parent: Link[FromChild] = Link(FromChild, lambda frame: None)
    ours, theirs = socket.socketpair()
    with theirs:
        await parent.connect(ours)
        for _ in range(100):
            parent.send(Batch([(1, "a" * 100_000)]))

        unsent = parent.num_unsent_bytes
        parent.close()
        await parent.lost.wait()

    assert 5_000_000 < unsent <= 100 * 100_100


async def test_a_link_that_was_never_connected_can_be_closed() -> None:
    parent: Link[FromChild] = Link(FromChild, lambda frame: None)

    parent.close()

    assert parent.lost.is_set()
    assert parent.num_unsent_bytes == 0
