"""Keeps a model that fails from being loaded over and over.

The first failure may be anybody's bad luck, so the next caller may try again at
once. From the second in a row on, callers are told the reason without a try,
for twice as long each time.
"""

from msgspec import Struct

from engines.errors import EngineError, Unavailable

FIRST_SECONDS = 1.0
MAX_SECONDS = 60.0


class _Failure(Struct, frozen=True):
    times: int  # in a row
    message: str
    until: float


class BackOff:
    """What failed lately, by model; lives on the event loop."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    def failed(self, name: str, error: EngineError, now: float) -> None:
        """Note a failure. Only what is not the caller's fault and may pass by itself counts."""
        if not isinstance(error, Unavailable):
            return
        last = self._failures.get(name)
        # Who did well for so long after the last time does not fail in a row.
        times = 1 if last is None or now - last.until > MAX_SECONDS else last.times + 1
        seconds = min(MAX_SECONDS, FIRST_SECONDS * 2 ** min(times - 2, 30)) if times > 1 else 0.0
        self._failures[name] = _Failure(times, error.message, now + seconds)

    def broke_down(self, name: str, now: float) -> Unavailable | None:
        """Note that it failed in use, and say so if it is not to be loaded again at once."""
        self.failed(name, Unavailable(f"model {name!r} broke down"), now)
        try:
            self.check(name, now)
        except Unavailable as error:
            return error
        return None

    def check(self, name: str, now: float) -> None:
        """Raise the reason while the model is not to be tried."""
        failure = self._failures.get(name)
        if failure is not None and now < failure.until:
            left = failure.until - now
            raise Unavailable(
                f"{failure.message} (failed {failure.times} times, next try in {left:.0f} s)",
                retry_after=max(1.0, left),
            )

    def forget(self, name: str) -> None:
        """It is another file now, or it was unloaded in good health."""
        self._failures.pop(name, None)
