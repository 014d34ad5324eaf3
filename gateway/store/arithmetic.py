"""The arithmetic of buckets, on plain integers; what `buckets.lua` says again in Lua.

GCRA in its leaky-bucket form (ITU-T I.371, continuous-state algorithm): a level
drains at `limit` units a minute, and a call fits if its units do. What a call
reserved and did not use may be taken out again, but only as far as it has not
drained in the meantime: a refund of what is already gone would admit more than
the limit. For that, a reservation remembers where in the queue it stood (`level`
after it, `at`), and the bucket how much was taken out since (`refunded`): at
worst all of it stood before this one.
"""

import calendar
import time

from msgspec import Struct

from gateway.store.protocol import MINUTE_MS, Bucket, Fill

# Past this the sum of refunds starts again, before it is too large to be exact.
MAX_REFUNDED = 2**52


class Level(Struct):
    """A rate bucket's state; `level` and `refunded` in units times milliseconds."""

    level: int
    at: int
    refunded: int
    born: int  # an emptied bucket is forgotten; what it knew of positions goes with it

    def drain(self, limit: int, now: int) -> None:
        """Let flow out what has flowed out by now."""
        if now > self.at:
            left = self.level - (now - self.at) * limit
            self.level = left if left > 0 else 0
            self.at = now

    def refund(self, units: int, taken: "Taken", limit: int) -> None:
        """Take out of the level what `taken` reserved and has not drained yet."""
        if self.born != taken.born:
            return
        undrained = (
            taken.level - (self.refunded - taken.refunded) - limit * max(0, self.at - taken.at)
        )
        amount = min(units * MINUTE_MS, max(0, undrained), self.level)
        self.level -= amount
        self.refunded += amount
        if self.refunded > MAX_REFUNDED:
            self.refunded, self.born = 0, self.at


class Taken(Struct, frozen=True, gc=False):
    """What a reservation took of one bucket, and where it stands in it."""

    cost: int
    at: int
    level: int = 0
    refunded: int = 0
    born: int = 0
    period: int = 0


def rate_fill(bucket: Bucket, level: int, cost: int) -> Fill:
    """How full a rate bucket is and whether `cost` more fits."""
    room = bucket.burst * MINUTE_MS - level
    missing = cost * MINUTE_MS - room
    limit = bucket.limit
    retry = 0
    if missing > 0:
        retry = -1 if cost > bucket.burst else -(-missing // limit)
    return Fill(
        missing <= 0,
        -(-level // MINUTE_MS),
        room // MINUTE_MS if room > 0 else 0,
        retry,
        -(-level // limit),
    )


def window_fill(bucket: Bucket, used: int, cost: int, left_ms: int) -> Fill:
    """How full a window is; it empties when its day or month ends, in `left_ms`."""
    fits = used + cost <= bucket.limit
    retry = 0 if fits else (-1 if cost > bucket.limit else left_ms)
    return Fill(fits, used, max(0, bucket.limit - used), retry, left_ms)


def leases_fill(bucket: Bucket, held: int, cost: int) -> Fill:
    """How many leases are out. When one comes back nobody knows, so a retry is soon."""
    fits = held + cost <= bucket.limit
    retry = 0 if fits else LEASE_RETRY_MS
    return Fill(fits, held, max(0, bucket.limit - held), retry, 0)


LEASE_RETRY_MS = 100


def room_for_output(bucket: Bucket, remaining: int, fixed: int, per_output: int) -> int:
    """How much output fits into `remaining` units beside the fixed part."""
    return max(0, (remaining * bucket.scale - fixed) // per_output)


def window_of(period: str, now: int) -> tuple[int, int]:
    """The number of the day or month that `now` is in, and when it ends; UTC milliseconds."""
    if period == "day":
        day = now // DAY_MS
        return day, (day + 1) * DAY_MS
    moment = time.gmtime(now // 1000)
    month = moment.tm_year * 12 + moment.tm_mon - 1
    year, following = divmod(month + 1, 12)
    return month, calendar.timegm((year, following + 1, 1, 0, 0, 0)) * 1000


DAY_MS = 24 * 60 * MINUTE_MS
