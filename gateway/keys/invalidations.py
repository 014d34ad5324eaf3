"""How the process that changed a key tells the others, so that they forget it.

This is only the quick way: a process that hears nothing finds out by itself within a
second (gateway/keys/known_keys.py). So a message may be lost, late or made up; all it
can cause is one more look-up.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

Forget = Callable[[str], None]  # called with the id of a key


class Invalidations(Protocol):
    """Between the processes that share a ledger."""

    async def announce(self, key_id: str) -> None:
        """Tell everyone that a key has changed. Neither fails nor waits long."""
        ...

    def listening(self, forget: Forget) -> AbstractAsyncContextManager[None]:
        """Call `forget` for each key that anyone announces."""
        ...


class OwnProcess:
    """Everyone is in this process."""

    def __init__(self) -> None:
        self._listeners: list[Forget] = []

    async def announce(self, key_id: str) -> None:
        """Tell them."""
        for forget in self._listeners:
            forget(key_id)

    @asynccontextmanager
    async def listening(self, forget: Forget) -> AsyncGenerator[None, None]:
        """Hear what is announced here."""
        self._listeners.append(forget)
        try:
            yield
        finally:
            self._listeners.remove(forget)


def open_invalidations(store_url: str) -> Invalidations:
    """By Redis where the gateways share one (`PENSTOCK_STORE`), else in this process."""
    if store_url.partition("://")[0] not in ("redis", "rediss", "unix"):
        return OwnProcess()
    from gateway.keys.redis_invalidations import RedisInvalidations

    return RedisInvalidations(store_url)
