"""How far a download is, kept beside the unfinished file so that the next one goes on.

The state is written after the bytes that it speaks of, so that a killed process
leaves a state that promises too little and never too much. A machine that stops
may lose bytes that were promised; the digest shows it.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from engines.errors import Unavailable
from engines.gguf.files.writing import write_whole

_MAX_STATE_BYTES = 4 * 1024 * 1024
_MAX_PARTS = 65_536
_STATE_BYTES = 100  # of a state without parts
_PART_BYTES = 3 * 16 + 4


@dataclass(eq=False)
class Part:
    """Bytes `start` to `end`, of which the first `done` are in the file."""

    start: int
    end: int
    done: int = 0

    @property
    def next_byte(self) -> int:
        """The first byte that is missing."""
        return self.start + self.done

    @property
    def missing_bytes(self) -> int:
        """How many bytes are missing."""
        return self.end - self.next_byte


class _State(Struct, frozen=True):
    size_bytes: int
    tag: str
    parts: list[tuple[int, int, int]]


class Parts:
    """The parts of one file; `tag` tells one version of it from another."""

    def __init__(self, path: Path, size_bytes: int, tag: str, parts: list[Part]) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._tag = tag
        self._parts = parts

    @classmethod
    def new(cls, path: Path, size_bytes: int, tag: str, part_bytes: int) -> "Parts":
        """Nothing is there yet."""
        part_bytes = max(part_bytes, -(-size_bytes // _MAX_PARTS))
        starts = range(0, size_bytes, part_bytes)
        parts = [Part(start, min(start + part_bytes, size_bytes)) for start in starts]
        return cls(path, size_bytes, tag, parts)

    @classmethod
    def kept(cls, path: Path, size_bytes: int, tag: str) -> "Parts | None":
        """What an earlier download left; None if it is none, or of another file."""
        state = _read(path)
        if state is None or (state.size_bytes, state.tag) != (size_bytes, tag):
            return None
        parts = [Part(*part) for part in state.parts]
        ends = [0, *(part.end for part in parts)]
        tiles = all(part.start == end for part, end in zip(parts, ends, strict=False))
        within = all(0 <= part.done <= part.end - part.start for part in parts)
        if not tiles or not within or ends[-1] != size_bytes:
            return None
        return cls(path, size_bytes, tag, parts)

    @property
    def done_bytes(self) -> int:
        """Of all parts together."""
        return sum(part.done for part in self._parts)

    @property
    def missing(self) -> list[Part]:
        """The parts that are not finished, in order."""
        return [part for part in self._parts if part.missing_bytes]

    def save(self) -> None:
        """Write the state down. Raises `Unavailable` if that cannot be."""
        parts = [(part.start, part.end, part.done) for part in self._parts]
        state = msgspec.json.encode(_State(self._size_bytes, self._tag, parts))
        # Always as long as it can become, so that a full disk has room for the next one.
        state = state.ljust(_STATE_BYTES + len(self._tag) + _PART_BYTES * len(parts))
        try:
            write_whole(self._path, state, lasts=False)
        except Unavailable:
            if not _overwritten(self._path, state):
                raise

    def save_if_possible(self) -> None:
        """Write the state down at an end that has a worse reason than this."""
        with contextlib.suppress(Unavailable):
            self.save()


def _overwritten(path: Path, content: bytes) -> bool:
    """Write over a file that is as long already; one that is half written counts as none."""
    try:
        with path.open("r+b") as file:
            is_as_long = path.stat().st_size == len(content)
            return is_as_long and file.write(content) == len(content)
    except OSError:
        return False


def done_bytes_of(path: Path) -> int:
    """How far the download is whose state this is; another process may be writing it."""
    state = _read(path)
    return sum(done for _, _, done in state.parts) if state else 0


def _read(path: Path) -> _State | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_STATE_BYTES + 1)
        return msgspec.json.decode(content, type=_State)
    except (OSError, msgspec.MsgspecError, RecursionError):
        return None
