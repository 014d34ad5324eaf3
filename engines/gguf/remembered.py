"""Keeps what was learned of files on disk, so that the next start need not learn it again."""

import os
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import structlog

log = structlog.get_logger()

MAX_ENTRIES = 1000

Learned = TypeVar("Learned")


class Remembered(Generic[Learned]):
    """What was learned, by key; the oldest goes first. Owned by one thread at a time.

    A file that cannot be read is as none. One that cannot be written is logged as `event`,
    and what was learned holds until the process ends. Without a path that is all there is.
    """

    def __init__(self, path: Path | None, learned: type[Learned], *, event: str) -> None:
        self._path = path
        self._event = event
        self._entries = _read(path, learned) if path is not None else {}

    def get(self, key: str) -> Learned | None:
        """What was learned under this key."""
        return self._entries.get(key)

    def put(self, key: str, value: Learned) -> None:
        """Keep it, in the place of what was there."""
        self._entries[key] = value
        while len(self._entries) > MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            written = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            written.write_bytes(msgspec.json.encode(self._entries))
            written.replace(self._path)
        except OSError as error:
            log.warning(self._event, path=str(self._path), error=str(error))


def _read(path: Path, learned: Any) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, learned])
    except (OSError, msgspec.MsgspecError):
        return {}
