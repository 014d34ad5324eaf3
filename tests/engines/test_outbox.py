import asyncio
import threading

import pytest

from engines.errors import Unavailable
from engines.outbox import Mailbox, Outbox


async def test_items_posted_on_a_thread_arrive_in_order() -> None:
    mailbox: Mailbox[int] = Mailbox()
    outbox: Outbox[int] = Outbox(asyncio.get_running_loop())

    def steps() -> None:
        for step in range(3):
            outbox.post(mailbox, 2 * step)
            outbox.post(mailbox, 2 * step + 1)
            outbox.flush()

    thread = threading.Thread(target=steps)
    thread.start()
    received = [await mailbox.get() for _ in range(6)]
    thread.join()

    assert received == [0, 1, 2, 3, 4, 5]


async def test_nothing_is_seen_before_the_flush_and_all_of_it_with_one_wake_up() -> None:
    loop = asyncio.get_running_loop()
    mailboxes: list[Mailbox[int]] = [Mailbox() for _ in range(5)]
    outbox: Outbox[int] = Outbox(loop)
    for mailbox in mailboxes:
        outbox.post(mailbox, 1)
    await asyncio.sleep(0)
    before = [mailbox.get_nowait() for mailbox in mailboxes]

    outbox.flush()
    await asyncio.sleep(0)
    after = [mailbox.get_nowait() for mailbox in mailboxes]

    assert before == [None] * 5
    assert after == [1] * 5


async def test_an_error_is_raised_to_the_reader_in_its_turn() -> None:
    mailbox: Mailbox[str] = Mailbox()
    mailbox.put("first")
    mailbox.put(Unavailable("gone"))

    assert await mailbox.get() == "first"
    with pytest.raises(Unavailable, match="gone"):
        await mailbox.get()


async def test_a_closed_mailbox_keeps_nothing() -> None:
    mailbox: Mailbox[str] = Mailbox()
    mailbox.put("early")

    mailbox.close()
    mailbox.put("late")

    assert mailbox.get_nowait() is None


async def test_a_reader_that_is_cancelled_loses_no_item() -> None:
    mailbox: Mailbox[str] = Mailbox()
    reading = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    mailbox.put("kept")

    assert await mailbox.get() == "kept"


def test_flushing_to_a_closed_loop_says_so_and_does_not_raise() -> None:
    loop = asyncio.new_event_loop()
    outbox: Outbox[str] = Outbox(loop)
    loop.close()
    outbox.post(Mailbox(), "nobody")

    assert outbox.flush() is False
