"""Cuts a byte stream into the data of its server-sent events (WHATWG HTML 9.2).

Every byte is looked at once, however it is cut into pieces, and no event grows
past a limit: an upstream that sends one endless line costs a bounded amount
of memory and then its connection.
"""


class EventTooLong(ValueError):
    """An event, finished or not, has more bytes than it may."""


class EventSplitter:
    """Takes in bytes, gives out each finished event's data; what is unfinished stays inside."""

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._held = bytearray()  # an event that has not ended yet
        self._seen = 0  # how much of it is known to hold no end
        self._after_cr = False  # the last piece ended in CR; an LF now belongs to it

    @property
    def rest(self) -> bytes:
        """What came after the last finished event."""
        return bytes(self._held)

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of every event that `piece` ends. Raises `EventTooLong`.

        Comments, and events without data, leave nothing.
        """
        return [data for block in self.feed_blocks(piece) if (data := data_of(block))]

    def feed_blocks(self, piece: bytes) -> list[bytes]:
        """Every event that `piece` ends, as its lines came, with LF between them and none at the
        end. Raises `EventTooLong`."""
        if b"\r" in piece or self._after_cr:
            piece = self._with_plain_ends(piece)
        if not self._held and piece.endswith(b"\n\n"):
            blocks = piece.split(b"\n\n")  # the usual case: whole events, one or several
        else:
            self._held += piece
            end = self._held.rfind(b"\n\n", max(self._seen - 1, 0))
            if end < 0:
                self._seen = len(self._held)
                self._check(self._seen)
                return []
            blocks = bytes(self._held[:end]).split(b"\n\n")
            del self._held[: end + 2]
            self._seen = len(self._held)
            self._check(self._seen)
        for block in blocks:
            self._check(len(block))
        return [block for block in blocks if block]

    def _with_plain_ends(self, piece: bytes) -> bytes:
        """`piece` with every line end as LF."""
        if self._after_cr and piece.startswith(b"\n"):
            piece = piece[1:]
        self._after_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _check(self, size: int) -> None:
        if size > self._max:
            raise EventTooLong(f"an event is longer than {self._max} bytes")


def data_of(block: bytes) -> bytes:
    """The data of one event's lines: the `data` fields, joined."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines: list[bytes] = []
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
    return b"\n".join(lines)
