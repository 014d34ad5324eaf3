"""What readers of an upstream's answers share: in which forms one comes, and what is none.

A reader says how it reads an answer of some content type (`form`), is given the
pieces as they come and says what they are (`feed`, `end`), or is given all of it
(`whole`). It never waits, so a test needs no server.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, Protocol

from msgspec import Raw, Struct

from engines.errors import DoubtfullyUnavailable
from engines.protocol import Event
from engines.remote.refusals import Refused
from engines.remote.sse import EventTooLong

Form = Literal["events", "whole", "pieces"]

EVENTS_TYPE = "text/event-stream"
NO_FIELD = Raw(b"")  # msgspec knows no `Raw | None`
_UNSET = (b"", b"null", b"{}", b'""', b"false")


class AnswerReader(Protocol):
    """Turns one answer into events. What it cannot read is `Unavailable`."""

    is_done: bool  # the answer says that it is over; its bytes may not be

    def form(self, content_type: str) -> Form:
        """How to read an answer of this type. Raises `Unavailable` for one that it cannot have."""
        ...

    def feed(self, piece: bytes) -> Iterable[Event]:
        """The events that a piece of a stream brings. Raises any `EngineError`, in its place."""
        ...

    def end(self) -> Sequence[Event]:
        """The last events of a stream. Raises `Unavailable` for one that broke off."""
        ...

    def whole(self, body: bytes) -> Sequence[Event]:
        """The events of an answer that came whole. Raises any `EngineError`."""
        ...


class Names(Struct, frozen=True, kw_only=True):
    """What a model is called on either side, and what of refusals may be told."""

    model: str
    public_model: str | None
    with_words: bool
    relay: bool

    def refused(self, body: bytes, *, status: int = 200) -> Refused:
        """An error that came where an answer was expected."""
        return Refused(
            status=status,
            headers={},
            body=body,
            model=self.model,
            public_model=self.public_model,
            with_words=self.with_words,
            relay=self.relay,
        )


def is_json(content_type: str) -> bool:
    """Is this the type of a JSON body?"""
    return content_type == "application/json" or content_type.endswith("+json")


def broken(why: str) -> DoubtfullyUnavailable:
    """An answer that cannot be one."""
    return DoubtfullyUnavailable(f"the upstream's answer cannot be used: {why}")


def is_set(error: Raw) -> bool:
    """Does an `error` field say that there was one?"""
    return bytes(error) not in _UNSET


def fed(feed: Callable[[bytes], list[bytes]], piece: bytes) -> list[bytes]:
    try:
        return feed(piece)
    except EventTooLong as error:
        raise broken(str(error)) from None
