"""A few things remembered for a few seconds, or for as long as there is room."""

from typing import Generic, TypeVar

Value = TypeVar("Value")


class ShortMemory(Generic[Value]):
    """At most `size` values, none for longer than `seconds`.

    All are kept equally long, so the first one in is the first one out.
    """

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._values: dict[bytes, tuple[float, Value]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes, now: float) -> Value | None:
        """What is remembered under `key`, or None."""
        found = self._values.get(key)
        if found is None:
            return None
        until, value = found
        if now < until:
            return value
        del self._values[key]
        return None

    def put(self, key: bytes, value: Value, now: float) -> None:
        """Remember `value` from `now` on; the oldest makes room."""
        self._values.pop(key, None)
        while len(self._values) >= self._size:
            del self._values[next(iter(self._values))]
        self._values[key] = (now + self._seconds, value)

    def drop(self, key: bytes) -> None:
        """Forget one value, if it is there."""
        self._values.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
