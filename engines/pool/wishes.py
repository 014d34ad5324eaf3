"""Those who wait for a model, in the order of their arrival."""

import asyncio
from collections.abc import Container, Iterator, Sequence
from typing import Generic

from engines.errors import EngineError
from engines.pool.place import Lease, Model, Wish
from engines.pool.room import Need


class Wishes(Generic[Model]):
    """The queue before a pool's models; lives on the event loop."""

    def __init__(self) -> None:
        self._wishes: list[Wish[Model]] = []
        self.last_number = 0

    def __len__(self) -> int:
        return len(self._wishes)

    def __iter__(self) -> Iterator[Wish[Model]]:
        """All of them as they are now; the queue may change meanwhile."""
        return iter(self._wishes[:])

    def __contains__(self, wish: Wish[Model]) -> bool:
        return wish in self._wishes

    def add(
        self,
        name: str,
        needs: Sequence[Need],
        *,
        now: float,
        keep_alive_seconds: float | None,
        default_keep_alive_seconds: float,
    ) -> Wish[Model]:
        """One more, at the end."""
        self.last_number += 1
        granted: asyncio.Future[Lease[Model]] = asyncio.get_running_loop().create_future()
        wish = Wish(
            name, self.last_number, now, keep_alive_seconds, default_keep_alive_seconds, needs,
            granted,
        )  # fmt: skip
        self._wishes.append(wish)
        return wish

    def remove(self, wish: Wish[Model]) -> None:
        """It waits no more."""
        self._wishes.remove(wish)

    def num_waiting_for(self, name: str) -> int:
        """How many wait for this model."""
        return sum(wish.name == name for wish in self._wishes)

    def first_of_each(self, without: Container[str]) -> list[Wish[Model]]:
        """The first wish for each model, but for those in `without`."""
        firsts: dict[str, Wish[Model]] = {}
        for wish in self._wishes:
            if wish.name not in without:
                firsts.setdefault(wish.name, wish)
        return list(firsts.values())

    def fail(self, error: EngineError, name: str | None = None) -> None:
        """Tell all who wait for this model, or for any, why they do so in vain."""
        failed = [wish for wish in self._wishes if name is None or wish.name == name]
        self._wishes = [wish for wish in self._wishes if wish not in failed]
        for wish in failed:
            if not wish.granted.done():
                wish.granted.set_exception(error)
