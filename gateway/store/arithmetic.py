"""The arithmetic of buckets, on plain integers; what `buckets.lua` says again in Lua.

GCRA in its leaky-bucket form (ITU-T I.371, continuous-state algorithm): a level
drains at `limit` units a minute, and a call fits if its units do. What a call
reserved and did not use may be taken out again, as far as `Level.settle` says
(`states.py`, where the state that goes with each kind of bucket is).
"""

import calendar
import time

from gateway.store.protocol import MINUTE_MS, Bucket, Fill


def rate_fill(bucket: Bucket, level: int, cost: int) -> Fill:
    """How full a rate bucket is and whether `cost` more fits."""
    used, reset_ms = -(-level // MINUTE_MS), -(-level // bucket.limit)
    room = bucket.burst - used  # as `used` is rounded up, this is rounded down
    if cost <= room:
        return Fill(fits=True, used=used, remaining=room, retry_ms=0, reset_ms=reset_ms)
    missing = level - (bucket.burst - cost) * MINUTE_MS
    retry_ms = -1 if cost > bucket.burst else -(-missing // bucket.limit)
    return Fill(fits=False, used=used, remaining=max(0, room), retry_ms=retry_ms, reset_ms=reset_ms)


def window_fill(bucket: Bucket, used: int, cost: int, left_ms: int) -> Fill:
    """How full a window is; it empties when its day or month ends, in `left_ms`."""
    room = bucket.limit - used
    if cost <= room:
        return Fill(fits=True, used=used, remaining=room, retry_ms=0, reset_ms=left_ms)
    retry_ms = -1 if cost > bucket.limit else left_ms
    return Fill(fits=False, used=used, remaining=max(0, room), retry_ms=retry_ms, reset_ms=left_ms)


def leases_fill(bucket: Bucket, held: int, cost: int) -> Fill:
    """How many leases are out. When one comes back nobody knows, so a retry is soon."""
    room = bucket.limit - held
    fits = cost <= room
    return Fill(fits, held, room if room > 0 else 0, 0 if fits else LEASE_RETRY_MS, 0)


LEASE_RETRY_MS = 100


def room_for_output(bucket: Bucket, remaining: int, fixed: int, per_output: int) -> int:
    """How much output fits into `remaining` units beside the fixed part."""
    return max(0, (remaining * bucket.scale - fixed) // per_output)


def window_of(period: str, now: int) -> tuple[int, int, int]:
    """The number of the day or month that `now` is in, its begin and its end; UTC milliseconds."""
    if period == "day":
        day = now // DAY_MS
        return day, day * DAY_MS, (day + 1) * DAY_MS
    moment = time.gmtime(now // 1000)
    month = moment.tm_year * 12 + moment.tm_mon - 1
    return month, _begin_of(month), _begin_of(month + 1)


def _begin_of(month: int) -> int:
    year, month = divmod(month, 12)
    return calendar.timegm((year, month + 1, 1, 0, 0, 0)) * 1000


DAY_MS = 24 * 60 * MINUTE_MS
