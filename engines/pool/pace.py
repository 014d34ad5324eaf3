"""How long loads and requests took of late, to tell who is turned away when to come back."""

_SMOOTHING = 0.3


class Pace:
    """Seconds of late; lives on the event loop."""

    def __init__(self) -> None:
        self._load_seconds: dict[str, float] = {}
        self._any_load_seconds = 0.0
        self._lease_seconds = 0.0

    def loaded(self, name: str, seconds: float) -> None:
        """Note how long a load took."""
        self._load_seconds[name] = _smoothed(self._load_seconds.get(name, 0.0), seconds)
        self._any_load_seconds = _smoothed(self._any_load_seconds, seconds)

    def released(self, seconds: float) -> None:
        """Note how long a request had its model."""
        self._lease_seconds = _smoothed(self._lease_seconds, seconds)

    def until_loaded(self, name: str, *, began: float | None, num_before: int, now: float) -> float:
        """Seconds until a model can be used, at least one.

        It is loading since `began`, or it waits for room behind so many others.
        """
        own = self._load_seconds.get(name, self._any_load_seconds)
        if began is not None:
            return max(1.0, own - (now - began))
        return max(1.0, self._lease_seconds + num_before * self._any_load_seconds + own)


def _smoothed(last: float, new: float) -> float:
    return last + _SMOOTHING * (new - last) if last else new
