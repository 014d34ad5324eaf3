"""Which models are loaded.

A model is loaded when it is first asked for and stays for its keep-alive after
the last request. When another is wanted and there is no room for it, idle ones
are evicted; how they are chosen is plan.py.

Every decision is taken in `_decide`, a plain function on the event loop that
runs whenever something changed: nothing else loads, unloads or grants what
somebody waits for. Loads and unloads themselves run beside it, so a slow one
holds up nobody else.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic

import structlog

from engines.errors import EngineError, Unavailable
from engines.metrics import LoadMetrics, LoadRecorder
from engines.pool.back_off import BackOff
from engines.pool.pace import Pace
from engines.pool.place import Lease, Model, Place, Wish
from engines.pool.plan import plan
from engines.pool.refusals import no_room, too_large, too_many
from engines.pool.room import ANY, UNLIMITED, Budget, Limits, Need, Room, total
from engines.pool.wishes import Wishes

log = structlog.get_logger()

RECHECK_SECONDS = 1.0
"""How often is looked again for room, which other programs of this machine may have given back."""


FOLLOWING_SECONDS = 10.0
"""How long a model is kept for a request that was announced."""


class Pool(Generic[Model]):
    """The loaded models of one engine; lives on the event loop.

    Always: what is loaded, loading or being freed fits the budget, as far as is known; it is
    told what a model takes when it is asked for one, and what it measured once it is loaded.
    """

    def __init__(
        self,
        open_model: Callable[[str, Need], Awaitable[Model]],
        *,
        limits: Limits,
        budget: Budget = UNLIMITED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_model = open_model
        self._limits = limits
        self._budget = budget
        self._clock = clock
        self._places: dict[str, Place[Model]] = {}
        self._wishes: Wishes[Model] = Wishes()
        self._back_off = BackOff()
        self._pace = Pace()
        self._recorders: dict[str, LoadRecorder] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def lease(
        self,
        name: str,
        *,
        keep_alive_seconds: float | None = None,
        needs: Sequence[Need] | None = None,
        default_keep_alive_seconds: float | None = None,
        expects_another: bool = False,
    ) -> Lease[Model]:
        """Wait until a model is loaded. Raises why it cannot be; it may be asked for again.

        `keep_alive_seconds` holds from now on; None leaves it as it is, or at the model's
        default if it is not loaded yet. `needs` are the ways in which the model can be loaded,
        the best first; they may be left out where `serves` is true, or nothing is known. Who
        `expects_another` request to follow keeps the model a moment for it, even one that is to
        be freed at once: or to count a prompt before it is answered would load the model twice.
        """
        needs = needs or ANY
        if self._is_closed:
            raise Unavailable("the engine is closed")
        if not self.serves(name):
            self._turn_away(name, needs)
        if default_keep_alive_seconds is None:
            default_keep_alive_seconds = self._limits.keep_alive_seconds
        wish = self._wishes.add(
            name,
            needs,
            now=self._clock(),
            keep_alive_seconds=keep_alive_seconds,
            default_keep_alive_seconds=default_keep_alive_seconds,
        )
        wish.expects_another = expects_another
        self._decide()
        granted = wish.granted
        try:
            return await granted
        except asyncio.CancelledError:
            if wish in self._wishes:
                self._wishes.remove(wish)
                self._decide()  # others may have waited behind it
            elif not granted.cancelled() and granted.exception() is None:
                granted.result().release()
            raise

    def _turn_away(self, name: str, needs: Sequence[Need]) -> None:
        """Raise for those who need not wait, since nothing good would come of it."""
        self._back_off.check(name, self._clock())
        if not any(self._budget.total.holds(need.room) for need in needs):
            raise too_large(name, needs, self._budget)
        num_waiting = self.num_waiting_for(name)
        if num_waiting >= self._limits.max_waiting:
            raise too_many(name, num_waiting, self._until_loaded(name))

    def _until_loaded(self, name: str) -> float:
        place = self._places.get(name)
        began = place.began if place is not None and place.is_loading else None
        before = [wish.name for wish in self._wishes.first_of_each(self._places)]
        num_before = before.index(name) if name in before else len(before)
        now = self._clock()
        return self._pace.until_loaded(name, began=began, num_before=num_before, now=now)

    async def unload(self, name: str) -> None:
        """Unload a model once its requests have finished, and wait for that.

        Those that already wait for its load are answered, too; later ones get a new copy.
        """
        place = self._places.get(name)
        if place is None:
            return
        place.last_number = min(place.last_number, self._wishes.last_number)
        self._decide()
        await place.gone.wait()

    def retire(self, name: str) -> None:
        """Let nobody have this copy any more: its file has changed, or is gone."""
        self._back_off.forget(name)
        if (place := self._places.get(name)) is not None:
            place.last_number = 0
            self._decide()

    @property
    def num_waiting(self) -> int:
        """Callers whose model is not loaded yet."""
        return len(self._wishes)

    def num_waiting_for(self, name: str) -> int:
        """Callers who wait for this model to be loaded."""
        return self._wishes.num_waiting_for(name)

    @property
    def room(self) -> Room:
        """What all models take that are loaded, loading or being freed."""
        return total(place.room for place in self._places.values())

    def loads_of(self, name: str) -> LoadMetrics | None:
        """What was counted of a model's loads; None if it was never asked for."""
        recorder = self._recorders.get(name)
        return recorder.snapshot() if recorder is not None else None

    def serves(self, name: str) -> bool:
        """Whether a request that comes now has its model at once."""
        place = self._places.get(name)
        return place is not None and place.serves(self._wishes.last_number + 1)

    def find(self, name: str) -> Model | None:
        """A model if it is loaded now and new requests may have it."""
        place = self._places.get(name)
        if place is None or place.is_unwanted or not place.is_usable:
            return None
        return place.model

    def idle_seconds_left(self, name: str) -> float | None:
        """How long a loaded model stays if nobody asks for it any more; None: for ever."""
        place = self._places.get(name)
        if place is None or place.model is None or place.stays_for_ever:
            return None
        if place.num_leases:
            return place.keep_alive_seconds
        return max(0.0, place.expires_at - self._clock())

    def loaded(self) -> list[Model]:
        """All models that are loaded now."""
        return [place.model for place in self._places.values() if place.model is not None]

    async def close(self) -> None:
        """End every stream with `Unavailable` and free everything; idempotent."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._wishes.fail(Unavailable("the engine was closed"))
        for place in self._places.values():
            if place.is_loading and place.work is not None:
                place.work.cancel()
            elif not place.is_leaving:
                self._start_unload(place, "closed")
        works = [place.work for place in self._places.values() if place.work is not None]
        await asyncio.gather(*works, return_exceptions=True)
        for place in list(self._places.values()):
            self._forget(place)

    def _decide(self) -> None:
        if self._is_closed:
            return
        now = self._clock()
        # Grants come first: a model whose keep-alive is 0 is loaded for somebody, after all.
        self._grant_all(now)
        for place in self._places.values():
            if place.is_idle and (why := self._why_unload(place, now)):
                self._start_unload(place, why)
        self._carry_out(now)
        self._grant_all(now)  # some may have waited for a model that need not make way any more
        self._set_timer(now)

    def _grant_all(self, now: float) -> None:
        for wish in self._wishes:
            place = self._places.get(wish.name)
            if place is not None and place.serves(wish.number):
                self._wishes.remove(wish)
                self._grant(place, wish, now)

    def _why_unload(self, place: Place[Model], now: float) -> str:
        assert place.model is not None
        if place.model.has_failed:
            return "failed"
        if place.is_unwanted:
            return "replaced" if place.last_number == 0 else "asked"
        return "expired" if place.expires_at <= now else ""

    def _carry_out(self, now: float) -> None:
        made = plan(
            list(self._places.values()),
            self._wishes.first_of_each(self._places),
            self._budget,
            now=now,
            min_residency_seconds=self._limits.min_residency_seconds,
        )
        for place in self._places.values():
            place.makes_way = place in made.make_way
        for place in made.evictions:
            self._start_unload(place, "evicted")
        for wish, need in made.loads:
            self._start_load(wish, need, now)
        for wish, room in made.refused:
            self._wishes.fail(no_room(wish.name, wish.needs, room), wish.name)

    def _start_load(self, wish: Wish[Model], need: Need, now: float) -> None:
        place: Place[Model] = Place(wish.name, need, wish.default_keep_alive_seconds, now)
        self._places[wish.name] = place
        place.work = asyncio.create_task(self._load(place), context=Context())

    def _grant(self, place: Place[Model], wish: Wish[Model], now: float) -> None:
        if wish.granted.done():
            return
        place.num_leases += 1
        if wish.keep_alive_seconds is not None:
            place.keep_alive_seconds = wish.keep_alive_seconds

        elif place.expected:
            place.expected.pop(0)

        def give_back() -> None:
            place.num_leases -= 1
            place.idle_since = self._clock()
            if wish.expects_another:
                place.expected.append(place.idle_since + FOLLOWING_SECONDS)
            self._pace.released(place.idle_since - now)
            self._decide()

        assert place.model is not None
        wish.granted.set_result(Lease(place.model, give_back))

    async def _load(self, place: Place[Model]) -> None:
        recorder = self._recorders.setdefault(place.name, LoadRecorder())
        try:
            place.model = await self._open_model(place.name, place.need)
        # Whatever it is, those who wait must hear of it, and the next may try again.
        except Exception as error:
            if not isinstance(error, EngineError):
                log.exception("model_load_failed", model=place.name)
                error = Unavailable(f"model {place.name!r} could not be loaded: {error}")
            recorder.num_failed += 1
            self._back_off.failed(place.name, error, self._clock())
            self._forget(place)
            self._wishes.fail(error, place.name)
        else:
            place.ready_at = place.idle_since = self._clock()
            recorder.loaded(place.ready_at - place.began)
            self._pace.loaded(place.name, place.ready_at - place.began)
        place.work = None
        self._decide()

    def _start_unload(self, place: Place[Model], why: str) -> None:
        place.why_leaving = why
        place.work = asyncio.create_task(self._unload(place), context=Context())

    async def _unload(self, place: Place[Model]) -> None:
        assert place.model is not None
        name, why = place.name, place.why_leaving
        try:
            await place.model.close()
        # Its place must be given back all the same, or who waits for it waits for ever.
        except Exception:
            log.exception("model_unload_failed", model=name)
        log.info("model_unloaded", model=name, why=why)
        self._recorders.setdefault(name, LoadRecorder()).unloaded(why)
        self._forget(place)
        if why == "failed":
            # It is loaded anew at once, unless that has become a habit.
            if (error := self._back_off.broke_down(name, self._clock())) is not None:
                self._wishes.fail(error, name)
        elif why != "closed":
            self._back_off.forget(name)
        self._decide()

    def _forget(self, place: Place[Model]) -> None:
        if self._places.get(place.name) is place:
            del self._places[place.name]
        place.gone.set()

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [place.expires_at for place in self._places.values() if place.is_idle]
        if self._wishes.first_of_each(self._places):
            due.append(now + RECHECK_SECONDS)
        first = min(due, default=float("inf"))
        if first < float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, first - now), self._decide)
