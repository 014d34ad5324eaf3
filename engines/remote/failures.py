"""What can go wrong between a question and the end of its answer, and how it is said.

The words name neither host nor address: callers of the gateway read them. What
the system said goes with the error as its text, for the log.
"""

from typing import ClassVar


class ConnectionFailure(Exception):
    """A question has no answer, or not all of one; its text is for the log."""

    words: ClassVar[str] = "closed the connection before it had answered"


class ClosedUnanswered(ConnectionFailure):
    """The connection was closed or reset before the answer's head was whole."""


class ConnectedTooLate(ConnectionFailure):
    """Nobody took the connection within `connect_seconds`."""

    words: ClassVar[str] = "did not take the connection in time"


class CertificateRefused(ConnectionFailure):
    """The server's certificate is not one of those that are trusted, or of another host."""

    words: ClassVar[str] = "has a certificate that is not trusted"


class NameUnknown(ConnectionFailure):
    """The base URL's host name does not resolve."""

    words: ClassVar[str] = "has a name that does not resolve"


class NotConnected(ConnectionFailure):
    """No connection could be opened: refused, unreachable, against the rules, not TLS."""

    words: ClassVar[str] = "cannot be connected to"


class AnsweredTooLate(ConnectionFailure):
    """The head, the next byte or the end of the answer did not come in time."""

    words: ClassVar[str] = "did not answer in time"


class BrokenOff(ConnectionFailure):
    """The connection was closed or reset in mid-answer."""

    words: ClassVar[str] = "broke off its answer"


class NotHttp(ConnectionFailure):
    """What came is not an answer as HTTP/1.1 has them, or one that could be read in two ways."""

    words: ClassVar[str] = "sent an answer that is not HTTP"
