"""Does the upstream take connections? For the engine's health, when nothing else tells.

An open connection tells: a server that ends closes it. Without one, a connection is opened and
closed again; nothing is asked, so it costs the upstream no call.
"""

import asyncio
from time import monotonic

from engines.remote.connections import Connections
from engines.remote.failures import ConnectionFailure

FRESH_SECONDS = 1.0  # whoever asks again within them gets the last answer
PATIENCE_SECONDS = 1.0  # with a connection that takes longer to open; then the last answer holds


class Reachability:
    """Of one upstream. The event loop owns it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._problem = ""
        self._looked_at = -FRESH_SECONDS
        self._look: asyncio.Task[None] | None = None

    async def problem(self) -> str:
        """Why the upstream cannot be connected to; empty when it can, as far as is known."""
        if self._connections.num_open:
            self._problem = ""
        elif self._look is not None or monotonic() - self._looked_at >= FRESH_SECONDS:
            if self._look is None:
                self._look = asyncio.create_task(self._connect())
            await asyncio.wait((self._look,), timeout=PATIENCE_SECONDS)
        return self._problem

    async def close(self) -> None:
        """Stop looking; idempotent."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)

    async def _connect(self) -> None:
        try:
            await self._connections.try_one()
            self._problem = ""
        except ConnectionFailure as failure:
            self._problem = f"the upstream {failure.words}"
        finally:
            self._looked_at = monotonic()
            self._look = None
