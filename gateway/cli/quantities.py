"""Sizes, durations and times, in words for people."""

import re
from datetime import datetime

NANOSECONDS = 1_000_000_000
_STEPS = (
    (365 * 86_400, "year"),
    (30 * 86_400, "month"),
    (7 * 86_400, "week"),
    (86_400, "day"),
    (3_600, "hour"),
    (60, "minute"),
    (1, "second"),
)
_FOREVER_SECONDS = 50 * 365 * 86_400  # an end that far away is how Ollama writes "never"
_DURATION = re.compile(r"-?(?:\d+(?:\.\d+)?(?:ms|[smh]))+|-?\d+(?:\.\d+)?")


def bytes_text(count: float) -> str:
    """`4.7 GB`; powers of a thousand, as disks and networks count."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def seconds_text(seconds: float) -> str:
    """`480ms`, `3.2s`, `4m10s`, `1h05m`."""
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes}m{int(seconds) % 60:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def distance_text(seconds: float) -> str:
    """`3 days ago`, `4 minutes from now`."""
    if abs(seconds) < 1:
        return "now"
    size, word = next((size, word) for size, word in _STEPS if abs(seconds) >= size)
    count = round(abs(seconds) / size)
    span = f"{count} {word}{'s' if count != 1 else ''}"
    return f"{span} ago" if seconds < 0 else f"{span} from now"


def since_text(moment: str | None, now: datetime) -> str:
    """How far an RFC 3339 time is from `now`; `-` where there is none."""
    then = time_of(moment)
    if then is None or then.year < 1970:
        return "-"
    seconds = (then - now).total_seconds()
    return "forever" if seconds > _FOREVER_SECONDS else distance_text(seconds)


def time_of(moment: str | None) -> datetime | None:
    """Read an RFC 3339 time, with nanoseconds if it has them."""
    if not moment:
        return None
    trimmed = re.sub(r"(\.\d{6})\d+", r"\1", moment)
    try:
        found = datetime.fromisoformat(trimmed)
    except ValueError:
        return None
    return found if found.tzinfo else found.astimezone()


def is_duration(text: str) -> bool:
    """Is this what `keep_alive` takes: `10m`, `1h30m`, a number of seconds, below 0 for ever?"""
    return _DURATION.fullmatch(text) is not None


def number_text(count: float) -> str:
    """`124.7M`, `8.0B`: how large a model is."""
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(count) >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:g}"
