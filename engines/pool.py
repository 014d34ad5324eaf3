"""Which models are loaded.

A model is loaded when it is first asked for and stays for its keep-alive after
the last request. When another is wanted and all places are taken, the one idle
for longest makes room; a busy one never does, the newcomer waits instead.

Every decision is taken in `_decide`, a plain function on the event loop that
runs whenever something changed: nothing else loads, unloads or grants what
somebody waits for. Loads and unloads themselves run beside it, so a slow one
holds up nobody else.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from engines.errors import EngineError, Unavailable

log = structlog.get_logger()


class Poolable(Protocol):
    """A loaded model, as far as the pool cares."""

    @property
    def has_failed(self) -> bool:
        """Whether it must be loaded anew before it can be used."""
        ...

    async def close(self) -> None:
        """End what still runs with `Unavailable` and return when all is freed."""
        ...


Model = TypeVar("Model", bound=Poolable)


@dataclass(eq=False)
class _Place(Generic[Model]):
    """One of the places for models: its model is loading, loaded or on its way out."""

    name: str
    model: Model | None = None
    num_leases: int = 0
    idle_since: float = 0.0
    keep_alive_seconds: float = 0.0
    is_unwanted: bool = False
    is_leaving: bool = False
    work: asyncio.Task[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_ready(self) -> bool:
        """New requests may have it."""
        return self.model is not None and not (
            self.is_leaving or self.is_unwanted or self.model.has_failed
        )

    @property
    def is_idle(self) -> bool:
        """It is loaded and nobody uses it."""
        return self.model is not None and not self.is_leaving and not self.num_leases

    @property
    def expires_at(self) -> float:
        if self.keep_alive_seconds < 0:
            return float("inf")
        return self.idle_since + self.keep_alive_seconds


@dataclass(eq=False)
class _Wish(Generic[Model]):
    """Somebody who waits for a model."""

    name: str
    keep_alive_seconds: float
    granted: "asyncio.Future[Lease[Model]]"


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


class Pool(Generic[Model]):
    """The loaded models of one engine; lives on the event loop."""

    def __init__(
        self,
        open_model: Callable[[str], Awaitable[Model]],
        *,
        max_loaded_models: int,
        keep_alive_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_model = open_model
        self._max_loaded_models = max(1, max_loaded_models)
        self._keep_alive_seconds = keep_alive_seconds
        self._clock = clock
        self._places: dict[str, _Place[Model]] = {}
        self._wishes: list[_Wish[Model]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def lease(self, name: str, *, keep_alive_seconds: float | None = None) -> Lease[Model]:
        """Wait until a model is loaded. Raises why it cannot be; it may be asked for again."""
        if self._is_closed:
            raise Unavailable("the engine is closed")
        if keep_alive_seconds is None:
            keep_alive_seconds = self._keep_alive_seconds
        granted: asyncio.Future[Lease[Model]] = asyncio.get_running_loop().create_future()
        wish = _Wish(name, keep_alive_seconds, granted)
        self._wishes.append(wish)
        self._decide()
        try:
            return await granted
        except asyncio.CancelledError:
            if wish in self._wishes:
                self._wishes.remove(wish)
            elif not granted.cancelled() and granted.exception() is None:
                granted.result().release()
            raise

    async def unload(self, name: str) -> None:
        """Unload a model once its running requests have finished, and wait for that."""
        place = self._places.get(name)
        if place is None:
            return
        self.retire(name)
        await place.gone.wait()

    def retire(self, name: str) -> None:
        """Let nobody have this copy of a model any more: its file has changed."""
        if (place := self._places.get(name)) is not None:
            place.is_unwanted = True
            self._decide()

    @property
    def num_waiting(self) -> int:
        """Callers whose model is not loaded yet."""
        return len(self._wishes)

    def num_waiting_for(self, name: str) -> int:
        """Callers who wait for this model to be loaded."""
        return sum(wish.name == name for wish in self._wishes)

    def find(self, name: str) -> Model | None:
        """A model if it is loaded now."""
        place = self._places.get(name)
        return place.model if place is not None and place.is_ready else None

    def loaded(self) -> list[Model]:
        """All models that are loaded now."""
        return [place.model for place in self._places.values() if place.model is not None]

    async def close(self) -> None:
        """End every stream with `Unavailable` and free everything; idempotent."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for wish in self._wishes:
            _settle(wish.granted, Unavailable("the engine was closed"))
        self._wishes.clear()
        for place in self._places.values():
            if place.model is None and place.work is not None:
                place.work.cancel()  # a load
            elif not place.is_leaving:
                self._start_unload(place)
        works = [place.work for place in self._places.values() if place.work is not None]
        await asyncio.gather(*works, return_exceptions=True)
        self._places.clear()

    def _decide(self) -> None:
        if self._is_closed:
            return
        # Grants come first: a model whose keep-alive is 0 is loaded for somebody, after all.
        for wish in list(self._wishes):
            place = self._places.get(wish.name)
            if place is not None and place.is_ready:
                self._wishes.remove(wish)
                self._grant(place, wish)
        now = self._clock()
        for place in self._places.values():
            over = place.is_unwanted or (place.model is not None and place.model.has_failed)
            if place.is_idle and (over or place.expires_at <= now):
                self._start_unload(place)
        for wish in self._wishes:
            if wish.name not in self._places:
                self._make_place(wish)
        self._set_timer(now)

    def _make_place(self, wish: _Wish[Model]) -> None:
        if len(self._places) < self._max_loaded_models:
            place: _Place[Model] = _Place(wish.name, keep_alive_seconds=wish.keep_alive_seconds)
            self._places[wish.name] = place
            place.work = asyncio.create_task(self._load(place))
            return
        if any(place.is_leaving for place in self._places.values()):
            return  # a place is about to be free
        wanted = {other.name for other in self._wishes}
        idle = [p for p in self._places.values() if p.is_idle and p.name not in wanted]
        if idle:
            self._start_unload(min(idle, key=lambda place: place.idle_since))

    def _grant(self, place: _Place[Model], wish: _Wish[Model]) -> None:
        if wish.granted.done():
            return
        place.num_leases += 1
        place.keep_alive_seconds = wish.keep_alive_seconds

        def give_back() -> None:
            place.num_leases -= 1
            place.idle_since = self._clock()
            self._decide()

        assert place.model is not None
        wish.granted.set_result(Lease(place.model, give_back))

    async def _load(self, place: _Place[Model]) -> None:
        try:
            place.model = await self._open_model(place.name)
            place.idle_since = self._clock()
        # Whatever it is, those who wait must hear of it, and the next may try again.
        except Exception as error:
            if not isinstance(error, EngineError):
                log.exception("model_load_failed", model=place.name)
                error = Unavailable(f"model {place.name!r} could not be loaded: {error}")
            self._forget(place)
            for wish in [wish for wish in self._wishes if wish.name == place.name]:
                self._wishes.remove(wish)
                _settle(wish.granted, error)
        place.work = None
        self._decide()

    def _start_unload(self, place: _Place[Model]) -> None:
        place.is_leaving = True
        place.work = asyncio.create_task(self._unload(place))

    async def _unload(self, place: _Place[Model]) -> None:
        assert place.model is not None
        await place.model.close()
        log.info("model_unloaded", model=place.name)
        self._forget(place)
        self._decide()

    def _forget(self, place: _Place[Model]) -> None:
        if self._places.get(place.name) is place:
            del self._places[place.name]
        place.gone.set()

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        expiries = [place.expires_at for place in self._places.values() if place.is_idle]
        first = min(expiries, default=float("inf"))
        if first < float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, first - now), self._decide)


def _settle(granted: "asyncio.Future[Lease[Model]]", error: EngineError) -> None:
    if not granted.done():
        granted.set_exception(error)
