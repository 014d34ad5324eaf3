"""Word from the server that a client has left, for the call that is being answered.

The server puts one into each request's scope. Without it, as under another server, the
middleware waits for `http.disconnect` in a task of its own, which costs each call a little.
"""

from collections.abc import Callable
from typing import Any

SCOPE_KEY = "penstock.hang_up"  # in the scope's `extensions`


class HangUp:
    """One request's. `listen` and `forget` are for the call, `happen` is for the server."""

    __slots__ = ("_has_happened", "_listener", "_resume_reading")

    def __init__(self, resume_reading: Callable[[], None]) -> None:
        self._resume_reading = resume_reading
        self._listener: Callable[[], None] | None = None
        self._has_happened = False

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this when the client leaves, or now if it has. For when the body has been read."""
        self._listener = listener
        # A connection that is not read does not tell that it has ended.
        self._resume_reading()
        if self._has_happened:
            listener()

    def forget(self) -> None:
        """Call nobody any more."""
        self._listener = None

    def happen(self) -> None:
        """The client has left."""
        self._has_happened = True
        if self._listener is not None:
            self._listener()


def hang_up_of(scope: Any) -> HangUp | None:
    """What the server put into this scope, if it did."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    return extensions.get(SCOPE_KEY)
