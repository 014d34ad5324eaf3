"""What a store of limits is: buckets, what a call wants of them, and one decision over all.

A call asks for room in several buckets at once. It gets all of it or nothing; what
it got is replaced by what it used when it ends. `memory.py` and `redis.py` do the
same arithmetic (`arithmetic.py`, `buckets.lua`); tests/contract/test_store.py holds
both to one model.

Everything is an integer: units (requests, tokens, micro-units of money) and
milliseconds. A rate bucket's level is units times the period's milliseconds, so
that draining it is exact and stays under 2^53, which is as far as Lua counts.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

MINUTE_MS = 60_000

BucketKind = Literal["rate", "window", "leases"]
Period = Literal["minute", "day", "month"]


class Bucket(Struct, frozen=True, kw_only=True, array_like=True, cache_hash=True):
    """One limit for one subject, such as the tokens of one team in a minute.

    The order of the fields is how `buckets.lua` reads them.

    `rate`: GCRA. `limit` units flow out in a minute, at most `burst` are in it.
    `window`: at most `limit` units in a calendar day or month, UTC.
    `leases`: at most `limit` calls at once, each holding a lease that expires.
    """

    kind: BucketKind
    key: str
    limit: int
    burst: int = 0
    period: Period = "minute"
    scale: int = 1  # what a demand is divided by, rounded up: finer units than the bucket's
    enforced: bool = True  # False: counted and reported, never a reason to refuse
    clamps: bool = False  # a call may get less output than it wants rather than nothing

    @property
    def capacity(self) -> int:
        """The most units that it can ever hold."""
        return self.burst if self.kind == "rate" else self.limit


class Demand(Struct, frozen=True, array_like=True):
    """What one call wants of one bucket: `fixed`, and `per_output` for each unit of output."""

    bucket: Bucket
    fixed: int = 1
    per_output: int = 0

    def cost(self, output: int) -> int:
        """Units of the bucket for so much output; never less than what it is worth."""
        cost = self.fixed + self.per_output * output
        scale = self.bucket.scale
        return cost if scale == 1 else -(-cost // scale)


class Fill(Struct, frozen=True, array_like=True):
    """How full one bucket is, as the call leaves it; for a refused call, as it found it."""

    fits: bool
    used: int  # units taken, reserved ones included
    remaining: int
    retry_ms: int  # until this call would fit; 0 if it does; -1 if it never will
    reset_ms: int  # until the bucket is as good as new


class Decision(Struct, frozen=True, array_like=True):
    """All or nothing. `fills` are in the order of the demands."""

    granted: bool
    output: int  # what was granted of the output asked for
    fills: Sequence[Fill]


class StoreUnavailable(Exception):
    """The store did not answer in time, or at all.

    `asked` says that the question went out: the store may act on it later.
    """

    def __init__(self, message: str, *, asked: bool = False) -> None:
        super().__init__(message)
        self.asked = asked


class Store(Protocol):
    """Hot, short-lived state that the calls of one or many gateways share."""

    async def reserve(
        self, call_id: str, demands: Sequence[Demand], *, output: int = 0, least_output: int = 0
    ) -> Decision:
        """Take what `demands` ask for, all of it or nothing.

        Asked again with the same `call_id`, it takes nothing more. Where buckets
        clamp, the granted output may be less than `output`, not less than
        `least_output`. A demand on a bucket that is not enforced and that does not
        fit is not taken. Raises `StoreUnavailable`, soon.
        """
        ...

    def settle(
        self,
        call_id: str,
        demands: Sequence[Demand],
        used: Sequence[int],
        *,
        charge_unreserved: bool = False,
    ) -> None:
        """Replace what a call reserved by what it `used`, bucket by bucket; free its leases.

        The first one counts, a second does nothing. It neither waits nor fails: a
        store that is away hears of it when it is back. A call without a reservation
        is charged only if `charge_unreserved` says so; a reservation that arrives
        after its settlement is ignored.
        """
        ...

    async def peek(self, demands: Sequence[Demand]) -> Sequence[Fill]:
        """How full the buckets are; takes nothing. Raises `StoreUnavailable`."""
        ...
