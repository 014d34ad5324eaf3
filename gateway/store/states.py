"""What a bucket holds in this process: a class for each kind of bucket, all with the same methods.

`fits` comes first: it lets time pass, and the others count on a state that is of now. A
state does not know its bucket, whose limit may change with the policy.
"""

from msgspec import Struct, field

from gateway.store.arithmetic import leases_fill, rate_fill, window_fill, window_of
from gateway.store.protocol import MINUTE_MS, Bucket, Fill

# Past this the sum of refunds starts again, before it is too large to be exact.
MAX_REFUNDED = 2**52
# A level's drain needs its limit, which it does not know; longer than any burst takes. Of a
# debt the level knows how long it lasts.
IDLE_MS = 60 * MINUTE_MS


class Taken(Struct, frozen=True, gc=False):
    """What a reservation took of one bucket, and where it stands in it."""

    cost: int
    at: int
    level: int = 0
    refunded: int = 0
    born: int = 0
    period: int = 0


class Level(Struct):
    """A rate bucket's state; `level` and `refunded` in units times milliseconds."""

    level: int
    at: int
    refunded: int
    born: int  # an emptied bucket is forgotten; what it knew of positions goes with it
    owes_until: int = 0  # there is a debt, at most until then

    def fits(self, bucket: Bucket, cost: int, now: int) -> bool:
        """Is there room for `cost`, after what has flowed out by now?"""
        if now > self.at:
            left = self.level - (now - self.at) * bucket.limit
            self.level = left if left > 0 else 0
            self.at = now
        elif now < self.at:
            # The clock was set back. What drains from now on has no place among the
            # moments that reservations remember, so none of them is given back.
            self.at = self.born = now
            self.refunded = 0
        return self.level <= (bucket.burst - cost) * MINUTE_MS

    def fill(self, bucket: Bucket, cost: int, now: int) -> Fill:
        """How full it is and whether `cost` more fits."""
        return rate_fill(bucket, self.level, cost)

    def take(self, call_id: str, bucket: Bucket, cost: int, now: int) -> tuple[Taken, Fill]:
        """Take `cost`: what to remember of that, and how full it is then."""
        level = self.level = self.level + cost * MINUTE_MS
        taken = Taken(cost, self.at, level, self.refunded, self.born)
        return taken, rate_fill(bucket, level, 0)

    def settle(self, call_id: str, bucket: Bucket, used: int, taken: Taken, now: int) -> None:
        """Replace what was taken by what was `used`, as far as it is still there.

        A refund of what has drained in the meantime would admit more than the limit. So
        a reservation remembers where in the queue it stood (`level` after it, `at`), and
        the bucket how much was taken out since (`refunded`): at worst all of it stood
        before this one.
        """
        more = used - taken.cost
        if more == 0:
            return
        self.fits(bucket, 0, now)
        if more > 0:
            self.level += more * MINUTE_MS
            self.owes_until = now + self.level // bucket.limit
        elif self.born == taken.born:
            drained = bucket.limit * max(0, self.at - taken.at)
            undrained = taken.level - (self.refunded - taken.refunded) - drained
            amount = min(-more * MINUTE_MS, undrained, self.level)
            if amount > 0:
                self.level -= amount
                self.refunded += amount
            if self.refunded > MAX_REFUNDED:
                self.refunded, self.born = 0, self.at

    def is_idle(self, now: int) -> bool:
        """May it be forgotten?"""
        return now - self.at >= IDLE_MS and now >= self.owes_until


class Window(Struct):
    """What was used in one day or month."""

    period: int
    used: int
    ends_at: int
    begins_at: int

    def fits(self, bucket: Bucket, cost: int, now: int) -> bool:
        """Is there room for `cost` in the day or month that it is now?"""
        if not self.begins_at <= now < self.ends_at:
            period, self.begins_at, self.ends_at = window_of(bucket.period, now)
            if period != self.period:
                self.period, self.used = period, 0
        return self.used + cost <= bucket.limit

    def fill(self, bucket: Bucket, cost: int, now: int) -> Fill:
        """How full it is and whether `cost` more fits."""
        return window_fill(bucket, self.used, cost, self.ends_at - now)

    def take(self, call_id: str, bucket: Bucket, cost: int, now: int) -> tuple[Taken, Fill]:
        """Take `cost`: what to remember of that, and how full it is then."""
        self.used += cost
        taken = Taken(cost, now, period=self.period)
        return taken, window_fill(bucket, self.used, 0, self.ends_at - now)

    def settle(self, call_id: str, bucket: Bucket, used: int, taken: Taken, now: int) -> None:
        """Replace what was taken by what was `used`.

        Usage belongs to the day in which the call began; a later day owes nothing.
        """
        self.fits(bucket, 0, now)
        if self.period == taken.period:
            self.used = max(0, self.used + used - taken.cost)

    def is_idle(self, now: int) -> bool:
        """May it be forgotten?"""
        return not self.used or now >= self.ends_at


class Leases(Struct):
    """The calls that run. They need not expire: this process and its calls end together."""

    holders: set[str] = field(default_factory=set[str])

    def fits(self, bucket: Bucket, cost: int, now: int) -> bool:
        """May one more call run?"""
        return len(self.holders) + cost <= bucket.limit

    def fill(self, bucket: Bucket, cost: int, now: int) -> Fill:
        """How many leases are out and whether `cost` more fit."""
        return leases_fill(bucket, len(self.holders), cost)

    def take(self, call_id: str, bucket: Bucket, cost: int, now: int) -> tuple[Taken, Fill]:
        """Give the call its lease: what to remember of that, and how many are out then."""
        self.holders.add(call_id)
        return Taken(cost, now), leases_fill(bucket, len(self.holders), 0)

    def settle(self, call_id: str, bucket: Bucket, used: int, taken: Taken, now: int) -> None:
        """The call has ended."""
        self.holders.discard(call_id)

    def is_idle(self, now: int) -> bool:
        """May it be forgotten?"""
        return not self.holders


State = Level | Window | Leases


def new_state(bucket: Bucket, now: int) -> State:
    """What a bucket holds that nobody has taken anything of."""
    if bucket.kind == "rate":
        return Level(0, now, 0, now)
    if bucket.kind == "window":
        period, begins_at, ends_at = window_of(bucket.period, now)
        return Window(period, 0, ends_at, begins_at)
    return Leases()
