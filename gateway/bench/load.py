"""When conversations begin: so many callers at once, or so many a second.

`AtOnce` is a closed loop: a caller asks again as soon as it is answered, so a
slow server is asked less. `Rate` is an open loop: conversations begin at times
that were drawn beforehand, whatever the server does, and an answer's time
counts from the moment at which its question was due. A client that is held up
therefore makes answers look slower, never faster (no coordinated omission).
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct


class AtOnce(Struct, frozen=True, tag="at_once"):
    """Callers that each ask again as soon as they are answered."""

    num_callers: int

    def __str__(self) -> str:
        return f"{self.num_callers} at once"


class Rate(Struct, frozen=True, tag="rate"):
    """Conversations that begin at random times, so many a second on average.

    Gaps are gamma-distributed with shape `burstiness`: 1 is a Poisson process,
    less comes in bursts, more is more even.
    """

    per_second: float
    burstiness: float = 1.0

    def __str__(self) -> str:
        return f"{self.per_second:g} a second"


Load = AtOnce | Rate


def arrival_times(rate: Rate, count: int, *, seed: int) -> Sequence[float]:
    """Seconds after the start at which each of `count` conversations is due."""
    random = Random(seed)
    scale = 1.0 / (rate.per_second * rate.burstiness)
    times: list[float] = []
    now = 0.0
    for _ in range(count):
        times.append(now)
        now += random.gammavariate(rate.burstiness, scale)
    return times
