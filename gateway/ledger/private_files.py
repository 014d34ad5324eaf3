"""Files that hold what only their owner may read, put in place whole or not at all.

Several processes may start at once and want the same first file: the ledger, the
pepper. Each makes its own aside and links it to the name; the first link wins,
and nobody ever sees half a file.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def private_directory(path: Path) -> None:
    """Make `path` for its owner only; one that is there already keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def create_once(path: Path, write: Callable[[Path], None]) -> bool:
    """Put what `write` makes at `path`, mode 0600; False if a file was there first."""
    private_directory(path.parent)
    if path.exists():
        return False
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        write(aside)
        _sync(aside)
        os.link(aside, path)
        _sync(path.parent)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def keep_private(path: Path) -> None:
    """Take a file that others may read away from them, if it is ours to do."""
    if path.stat().st_mode & 0o077 and path.stat().st_uid == os.getuid():
        path.chmod(0o600)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
