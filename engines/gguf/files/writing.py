"""Files that appear whole or not at all, also when the machine stops in between."""

import os
import uuid
from pathlib import Path

from engines.errors import Unavailable


def make_folder(path: Path) -> None:
    """Make a folder with all above it. Raises `Unavailable` with the system's reason."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"folder {str(path)!r} cannot be made: {error.strerror}") from None


def write_whole(path: Path, content: bytes, *, lasts: bool = True) -> None:
    """Write a file in one go; one that `lasts` is on the disk before it has its name.

    Raises `Unavailable` with the system's reason, and leaves nothing behind then."""
    written = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
    try:
        with written.open("xb") as file:
            file.write(content)
            if lasts:
                file.flush()
                os.fsync(file.fileno())
        written.replace(path)
    except OSError as error:
        written.unlink(missing_ok=True)
        raise Unavailable(f"{str(path)!r} cannot be written: {error.strerror}") from None
    if lasts:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put a folder's entries on the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
