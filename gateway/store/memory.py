"""The store of one process: dictionaries on its event loop.

Nothing here waits, so nothing needs a lock. What has emptied is forgotten by a
sweep whenever twice as much is kept as after the last one.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from gateway.store.arithmetic import room_for_output
from gateway.store.protocol import Bucket, Decision, Demand, Fill
from gateway.store.states import State, Taken, Window, new_state

TOMBSTONE_MS = 60_000
SWEEP_AT = 1024


class _Reservation(Struct, frozen=True):
    """`taken` is None once it is settled; kept a while, so that it cannot come again."""

    output: int
    taken: Sequence[Taken | None] | None
    at: int


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class MemoryStore:
    """Limits of this process alone; a restart forgets all but the windows it is given back."""

    def __init__(self, *, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._states: dict[str, State] = {}  # by the bucket's key
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
            fills = [self._filled(demand.bucket, 0, now) for demand in demands]
            return Decision(known.taken is not None, known.output, fills)
        if least_output < output:
            output = self._clamped(demands, output, least_output, now)
        wanted = [
            (self._state(demand.bucket, now), demand.bucket, demand.cost(output))
            for demand in demands
        ]
        fit = [state.fits(bucket, cost, now) for state, bucket, cost in wanted]
        if all(fit):
            took = [state.take(call_id, bucket, cost, now) for state, bucket, cost in wanted]
        elif any(
            demand.bucket.enforced and not fits for demand, fits in zip(demands, fit, strict=True)
        ):
            fills = [state.fill(bucket, cost, now) for state, bucket, cost in wanted]
            return Decision(granted=False, output=output, fills=fills)
        else:
            took = [
                state.take(call_id, bucket, cost, now)
                if fits
                else (None, state.fill(bucket, cost, now))
                for (state, bucket, cost), fits in zip(wanted, fit, strict=True)
            ]
        taken, fills = zip(*took, strict=True) if took else ((), ())
        self._reservations[call_id] = _Reservation(output, taken, now)
        if len(self._reservations) + len(self._states) >= self._sweep_at:
            self._sweep(now)
        return Decision(granted=True, output=output, fills=list(fills))

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
        if known is not None:
            if known.taken is None:
                return
            for demand, amount, taken in zip(demands, used, known.taken, strict=True):
                if taken is not None:
                    state = self._state(demand.bucket, now)
                    state.settle(call_id, demand.bucket, amount, taken, now)
        elif charge_unreserved:
            for demand, amount in zip(demands, used, strict=True):
                bucket = demand.bucket
                if bucket.kind != "leases":
                    state = self._state(bucket, now)
                    state.fits(bucket, 0, now)
                    nothing, _ = state.take(call_id, bucket, 0, now)
                    state.settle(call_id, bucket, amount, nothing, now)
        self._reservations[call_id] = _Reservation(0, None, now)

    async def peek(self, demands: Sequence[Demand]) -> Sequence[Fill]:
        """See `Store.peek`."""
        now = self._clock()
        return [self._filled(demand.bucket, demand.cost(0), now) for demand in demands]

    def windows(self) -> Mapping[str, tuple[int, int, int]]:
        """What is worth keeping over a restart: each window's period, units and end."""
        return {
            key: (state.period, state.used, state.ends_at)
            for key, state in self._states.items()
            if isinstance(state, Window) and state.used
        }

    def restore(self, windows: Mapping[str, tuple[int, int, int]]) -> None:
        """Go on from the windows that an earlier store had."""
        for key, (period, used, ends_at) in windows.items():
            # Whether it still counts, or was written by a clock that was wrong, is seen
            # when somebody asks; only the bucket knows what a period is.
            self._states[key] = Window(period, used, ends_at, begins_at=ends_at)

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

    def _state(self, bucket: Bucket, now: int) -> State:
        """What a bucket holds, kept from now on if it is new."""
        state = self._states.get(bucket.key)
        if state is None:
            state = self._states[bucket.key] = new_state(bucket, now)
        return state

    def _filled(self, bucket: Bucket, cost: int, now: int) -> Fill:
        state = self._states.get(bucket.key) or new_state(bucket, now)
        state.fits(bucket, cost, now)  # lets time pass
        return state.fill(bucket, cost, now)

    def _sweep(self, now: int) -> None:
        self._reservations = {
            call_id: known
            for call_id, known in self._reservations.items()
            if known.taken is not None or now - known.at < TOMBSTONE_MS
        }
        self._states = {key: state for key, state in self._states.items() if not state.is_idle(now)}
        self._sweep_at = max(SWEEP_AT, 2 * (len(self._reservations) + len(self._states)))
