"""The store of one process: dictionaries on its event loop.

Nothing here waits, so nothing needs a lock. What has emptied is forgotten by a
sweep whenever twice as much is kept as after the last one.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from gateway.store.arithmetic import (
    Level,
    Taken,
    leases_fill,
    rate_fill,
    room_for_output,
    window_fill,
    window_of,
)
from gateway.store.protocol import MINUTE_MS, Bucket, Decision, Demand, Fill

TOMBSTONE_MS = 60_000
SWEEP_AT = 1024


class _Window(Struct):
    period: int
    used: int
    ends_at: int


class _Reservation(Struct, frozen=True):
    """`taken` is None once it is settled; kept a while, so that it cannot come again."""

    output: int
    taken: list[Taken | None] | None
    at: int


# What a bucket holds, by its kind; of leases, the calls that have one.
_State = Level | _Window | set[str]


def _fits(bucket: Bucket, state: _State, cost: int) -> bool:
    if isinstance(state, Level):
        return cost * MINUTE_MS <= bucket.burst * MINUTE_MS - state.level
    if isinstance(state, _Window):
        return state.used + cost <= bucket.limit
    return len(state) + cost <= bucket.limit


def _fill(bucket: Bucket, state: _State, cost: int, now: int) -> Fill:
    if isinstance(state, Level):
        return rate_fill(bucket, state.level, cost)
    if isinstance(state, _Window):
        return window_fill(bucket, state.used, cost, state.ends_at - now)
    return leases_fill(bucket, len(state), cost)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class MemoryStore:
    """Limits of this process alone; a restart forgets all but the windows it is given back."""

    def __init__(self, *, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._levels: dict[str, Level] = {}
        self._windows: dict[str, _Window] = {}
        # Key -> call ids. They need not expire here: this process and its calls end together.
        self._leases: dict[str, set[str]] = {}
        self._reservations: dict[str, _Reservation] = {}
        self._sweep_at = SWEEP_AT

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Around its time of use; there is nothing to open."""
        yield

    async def reserve(
        self, call_id: str, demands: Sequence[Demand], *, output: int = 0, least_output: int = 0
    ) -> Decision:
        """See `Store.reserve`."""
        now = self._clock()
        known = self._reservations.get(call_id)
        if known is not None:
            return Decision(
                granted=known.taken is not None,
                output=known.output,
                fills=[self._filled(demand.bucket, 0, now) for demand in demands],
            )
        output = self._clamped(demands, output, least_output, now)
        wanted: list[tuple[Bucket, _State, int, bool]] = []
        is_refused = False
        for demand in demands:
            bucket, cost = demand.bucket, demand.cost(output)
            state = self._state(bucket, now)
            fits = _fits(bucket, state, cost)
            if not fits and bucket.enforced:
                is_refused = True
            wanted.append((bucket, state, cost, fits))
        if is_refused:
            fills = [_fill(bucket, state, cost, now) for bucket, state, cost, _ in wanted]
            return Decision(granted=False, output=output, fills=fills)
        taken: list[Taken | None] = []
        fills: list[Fill] = []
        for bucket, state, cost, fits in wanted:
            taken.append(self._take(call_id, bucket, state, cost, now) if fits else None)
            fills.append(_fill(bucket, state, 0 if fits else cost, now))
        self._reservations[call_id] = _Reservation(output, taken, now)
        self._sweep_sometimes(now)
        return Decision(granted=True, output=output, fills=fills)

    def settle(
        self,
        call_id: str,
        demands: Sequence[Demand],
        used: Sequence[int],
        *,
        charge_unreserved: bool = False,
    ) -> None:
        """See `Store.settle`."""
        now = self._clock()
        known = self._reservations.get(call_id)
        if known is not None and known.taken is None:
            return
        if known is not None and known.taken is not None:
            for demand, amount, taken in zip(demands, used, known.taken, strict=True):
                if taken is not None:
                    self._settle(call_id, demand.bucket, amount, taken, now)
        elif charge_unreserved:
            for demand, amount in zip(demands, used, strict=True):
                if demand.bucket.kind != "leases":
                    state = self._state(demand.bucket, now)
                    self._take(call_id, demand.bucket, state, amount, now)
        self._reservations[call_id] = _Reservation(0, None, now)

    async def peek(self, demands: Sequence[Demand]) -> Sequence[Fill]:
        """See `Store.peek`."""
        now = self._clock()
        return [self._filled(demand.bucket, demand.cost(0), now) for demand in demands]

    def windows(self) -> Mapping[str, tuple[int, int, int]]:
        """What is worth keeping over a restart: each window's period, units and end."""
        return {
            key: (window.period, window.used, window.ends_at)
            for key, window in self._windows.items()
        }

    def restore(self, windows: Mapping[str, tuple[int, int, int]]) -> None:
        """Go on from the windows that an earlier store had."""
        for key, (period, used, ends_at) in windows.items():
            self._windows[key] = _Window(period, used, ends_at)

    def num_held(self) -> int:
        """Calls with a reservation that is not settled."""
        return sum(known.taken is not None for known in self._reservations.values())

    def _clamped(self, demands: Sequence[Demand], output: int, least: int, now: int) -> int:
        granted = output
        for demand in demands:
            bucket = demand.bucket
            if bucket.clamps and demand.per_output and bucket.enforced:
                room = self._filled(bucket, 0, now).remaining
                granted = min(
                    granted, room_for_output(bucket, room, demand.fixed, demand.per_output)
                )
        return max(granted, min(least, output))

    def _state(self, bucket: Bucket, now: int) -> "_State":
        """A bucket as it is now. A new window or set is kept when something is taken of it."""
        if bucket.kind == "rate":
            return self._level(bucket, now)
        if bucket.kind == "window":
            return self._window(bucket, now)
        return self._leases.get(bucket.key) or set()

    def _level(self, bucket: Bucket, now: int) -> Level:
        level = self._levels.get(bucket.key)
        if level is None:
            level = self._levels[bucket.key] = Level(0, now, 0, now)
        elif now > level.at:
            level.drain(bucket.limit, now)
        return level

    def _filled(self, bucket: Bucket, cost: int, now: int) -> Fill:
        return _fill(bucket, self._state(bucket, now), cost, now)

    def _take(self, call_id: str, bucket: Bucket, state: "_State", cost: int, now: int) -> Taken:
        if isinstance(state, Level):
            state.level += cost * MINUTE_MS
            return Taken(cost, state.at, state.level, state.refunded, state.born)
        if isinstance(state, _Window):
            window = state
            if (kept := self._windows.get(bucket.key)) is not None and kept.period == state.period:
                window = kept
            window.used += cost
            self._windows[bucket.key] = window
            return Taken(cost, now, period=window.period)
        self._leases.setdefault(bucket.key, state).add(call_id)
        return Taken(cost, now)

    def _settle(self, call_id: str, bucket: Bucket, used: int, taken: Taken, now: int) -> None:
        if bucket.kind == "leases":
            leases = self._leases.get(bucket.key, set())
            leases.discard(call_id)
            if not leases:
                self._leases.pop(bucket.key, None)
        elif bucket.kind == "window":
            window = self._window(bucket, now)
            # Usage belongs to the day in which the call began; a later day owes nothing.
            if window.period == taken.period:
                window.used = max(0, window.used + used - taken.cost)
                self._windows[bucket.key] = window
        elif used != taken.cost:
            level = self._level(bucket, now)
            if used > taken.cost:
                level.level += (used - taken.cost) * MINUTE_MS
            else:
                level.refund(taken.cost - used, taken, bucket.limit)

    def _window(self, bucket: Bucket, now: int) -> _Window:
        window = self._windows.get(bucket.key)
        if window is not None and now < window.ends_at:
            return window
        period, ends_at = window_of(bucket.period, now)
        return _Window(period, 0, ends_at)

    def _sweep_sometimes(self, now: int) -> None:
        if len(self._reservations) + len(self._levels) + len(self._windows) < self._sweep_at:
            return
        self._reservations = {
            call_id: known
            for call_id, known in self._reservations.items()
            if known.taken is not None or now - known.at < TOMBSTONE_MS
        }
        # A level's drain needs its limit, which it does not know; untouched for an
        # hour is longer than any burst takes.
        self._levels = {
            key: level for key, level in self._levels.items() if now - level.at < 60 * MINUTE_MS
        }
        self._windows = {
            key: window for key, window in self._windows.items() if now < window.ends_at
        }
        kept = len(self._reservations) + len(self._levels) + len(self._windows)
        self._sweep_at = max(SWEEP_AT, 2 * kept)
