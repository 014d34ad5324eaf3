"""Times as Ollama writes them: Go's durations in, nanoseconds and RFC 3339 out."""

import math
import re
from datetime import UTC, datetime

from gateway.errors import BadRequest

FOREVER_SECONDS = -1.0  # engines keep a model for good that is to stay less than no time
# What Ollama shows of a model that is never unloaded: as far off as its clock goes.
_FAR_OFF = "2318-03-04T00:00:00Z"
_MOST_SECONDS = 10.0**10
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_WHOLE = re.compile(rf"[+-]?(?:(?:{_PART.pattern})+|0)")
_UNITS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip


def keep_alive_seconds(given: float | str | None) -> float | None:
    """`keep_alive`: seconds, or a duration like "5m"; less than nothing means for good.

    None where nothing is said. Raises `BadRequest`."""
    if given is None or given == "":
        return None
    seconds = _of_text(given) if isinstance(given, str) else float(given)
    if math.isnan(seconds):
        raise _wrong(given)
    if seconds < 0:
        return FOREVER_SECONDS
    return FOREVER_SECONDS if seconds > _MOST_SECONDS else seconds


def nanoseconds(seconds: float) -> int:
    """A duration of an answer."""
    return max(0, round(seconds * 1e9))


def now() -> str:
    """This moment, for `created_at`."""
    return rfc3339(datetime.now(UTC).timestamp())


def rfc3339(at: float | None) -> str:
    """A moment since the epoch; None is never."""
    if at is None:
        return _FAR_OFF
    return f"{datetime.fromtimestamp(at, UTC).isoformat(timespec='microseconds')[:26]}Z"


def _of_text(text: str) -> float:
    text = text.strip()
    try:
        return float(text)  # some clients send a number as text
    except ValueError:
        pass
    if len(text) > 100 or not _WHOLE.fullmatch(text):
        raise _wrong(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return -seconds if text.startswith("-") else seconds


def _wrong(given: object) -> BadRequest:
    return BadRequest(
        f'keep_alive is {str(given)[:60]!r}; it can be seconds, or a duration like "5m" or '
        '"1h30m"; -1 is for good, 0 unloads at once',
        param="keep_alive",
    )
