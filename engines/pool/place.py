"""What the pool keeps of each model that is loading, loaded or on its way out, and of who waits."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from engines.pool.room import Need, Room


class Poolable(Protocol):
    """A loaded model, as far as the pool cares."""

    @property
    def has_failed(self) -> bool:
        """Whether it must be loaded anew before it can be used."""
        ...

    @property
    def room(self) -> Room:
        """What it was measured to take, memory only; it may grow with use."""
        ...

    async def close(self) -> None:
        """End what still runs with `Unavailable` and return when all is freed."""
        ...


Model = TypeVar("Model", bound=Poolable)


class Lease(Generic[Model]):
    """The right to use a model: it is not unloaded before `release`."""

    def __init__(self, model: Model, give_back: Callable[[], None]) -> None:
        self.model = model
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give it back; idempotent, and never waits."""
        if self._give_back is not None:
            give_back, self._give_back = self._give_back, None
            give_back()


@dataclass(eq=False)
class Place(Generic[Model]):
    """One model's place. It counts for `room` from the start of its load until it is freed."""

    name: str
    need: Need
    keep_alive_seconds: float
    began: float  # to load
    model: Model | None = None
    ready_at: float = 0.0
    idle_since: float = 0.0
    num_leases: int = 0
    last_number: float = float("inf")  # of the wishes that may still have this copy
    why_leaving: str = ""
    makes_way: bool = False  # it takes no newcomers: one who waited before them needs its room
    expected: list[float] = field(default_factory=list[float])  # until when requests may follow
    work: "asyncio.Task[None] | None" = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def room(self) -> Room:
        """As it was estimated; once it is loaded, as it was measured."""
        measured = self.model.room if self.model is not None else self.need.room
        return Room(measured.main_bytes, measured.gpu_bytes, 1)

    @property
    def is_loading(self) -> bool:
        """It cannot be used yet."""
        return self.model is None

    @property
    def is_leaving(self) -> bool:
        """It is being freed."""
        return bool(self.why_leaving)

    @property
    def is_unwanted(self) -> bool:
        """New requests need another copy."""
        return self.last_number < float("inf")

    @property
    def is_usable(self) -> bool:
        """It is loaded, works and stays."""
        return self.model is not None and not self.is_leaving and not self.model.has_failed

    @property
    def is_idle(self) -> bool:
        """It is loaded and nobody uses it."""
        return self.model is not None and not self.is_leaving and not self.num_leases

    def serves(self, number: int) -> bool:
        """Whether the wish of this number may have it."""
        return self.is_usable and not self.makes_way and number <= self.last_number

    @property
    def stays_for_ever(self) -> bool:
        """Only another model's need for room ends it."""
        return self.keep_alive_seconds < 0

    @property
    def expires_at(self) -> float:
        """When it is freed if it is idle from `idle_since` on."""
        if self.stays_for_ever:
            return float("inf")
        return max(self.idle_since + self.keep_alive_seconds, *self.expected, 0.0)


@dataclass(eq=False)
class Wish(Generic[Model]):
    """Somebody who waits for a model."""

    name: str
    number: int  # those who came earlier have lower ones
    since: float
    keep_alive_seconds: float | None  # None: as it was, or the default
    default_keep_alive_seconds: float
    needs: Sequence[Need]  # alternatives, the best first
    granted: "asyncio.Future[Lease[Model]]"
    expects_another: bool = False
