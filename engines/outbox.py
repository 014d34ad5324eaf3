"""Hands what an engine's thread produces to the event loop, one wake-up per step.

A step of an engine yields something for every running sequence. Waking the
loop once for each costs more than the step of a small model, so the thread
collects with `post` and wakes the loop once with `flush`.

The step thread owns the `Outbox`; the loop owns every `Mailbox`. Nothing is
locked: the only shared thing is the loop's own thread-safe call queue.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """Where one caller waits for its items; lives on the event loop, has one reader.

    It has no bound of its own: an engine's request is bounded by `max_tokens`.
    After `close` the mailbox drops what still arrives.
    """

    def __init__(self) -> None:
        self._items: deque[Item | BaseException] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def put(self, item: Item | BaseException) -> None:
        """Add an item; an exception is raised to the reader when its turn comes."""
        if self._closed:
            return
        self._items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Item:
        """Wait for the next item and return it, or raise it."""
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        item = self._items.popleft()
        if isinstance(item, BaseException):
            raise item
        return item

    def get_nowait(self) -> Item | None:
        """The next item if one is here; raises it if it is an exception."""
        if not self._items:
            return None
        item = self._items.popleft()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Drop what is here and what is still to come."""
        self._closed = True
        self._items.clear()


class Outbox(Generic[Item]):
    """Collects a step's items on the engine's thread and delivers them together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: list[tuple[Mailbox[Item], Item | BaseException]] = []

    def post(self, mailbox: Mailbox[Item], item: Item | BaseException) -> None:
        """Queue an item for `mailbox`; nobody sees it before `flush`."""
        self._pending.append((mailbox, item))

    def flush(self) -> bool:
        """Wake the loop once with all that was posted; False if the loop is closed."""
        if not self._pending:
            return True
        batch, self._pending = self._pending, []
        try:
            self._loop.call_soon_threadsafe(_deliver, batch)
        except RuntimeError:  # the loop was closed while the thread was in a step
            return False
        return True


def _deliver(batch: list[tuple[Mailbox[Item], Item | BaseException]]) -> None:
    for mailbox, item in batch:
        mailbox.put(item)
