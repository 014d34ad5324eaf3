"""Receives a file onto this machine's disk: bounded, never in memory, held against its digest.

It has a random name in a folder of ours until it is known to be what it should be, and
is gone when the call ends, however it ends. What a process that was killed has left is
removed by the next upload, a day later.
"""

import asyncio
import errno
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from litestar import Request

from engines.errors import Unavailable
from gateway.api.bodies import body_pieces, declared_bytes
from gateway.errors import BadRequest

SPARE_BYTES = 256 * 1024 * 1024  # of the disk, that uploads leave to others
_WRITE_BYTES = 1024 * 1024
_STALE_SECONDS = 24 * 3600.0
_DIGEST = re.compile("sha256[:-]([0-9a-f]{64})")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def checked_digest(text: str) -> str:
    """`sha256:…` of a path's last part. Raises `BadRequest`; a digest is never a path."""
    found = _DIGEST.fullmatch(text)
    if found is None:
        raise BadRequest(
            f"{text[:100]!r} is no digest: sha256: and 64 hexadecimal digits", param="digest"
        )
    return f"sha256:{found[1]}"


@asynccontextmanager
async def received(
    request: Request[Any, Any, Any], digest: str, *, folder: Path, max_bytes: int
) -> AsyncGenerator[Path, None]:
    """The body as a file with this digest, until the block ends.

    Raises `BodyTooLarge`, `BadRequest` for another digest, `Unavailable` for a full disk."""
    path: Path | None = None
    try:
        path = await asyncio.to_thread(_begun, folder, declared_bytes(request))
        await _write(request, path, digest, max_bytes=max_bytes)
        yield path
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_room() from error
        raise Unavailable(f"the file cannot be kept: {error.strerror}") from error
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


async def _write(
    request: Request[Any, Any, Any], path: Path, digest: str, *, max_bytes: int
) -> None:
    sha256, held, size = hashlib.sha256(), list[bytes](), 0
    with path.open("r+b", buffering=0) as file:

        def write(content: bytes) -> None:
            sha256.update(content)
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]

        async for piece in body_pieces(request, max_bytes=max_bytes):
            held.append(piece)
            size += len(piece)
            if size >= _WRITE_BYTES:
                await asyncio.to_thread(write, b"".join(held))
                held, size = [], 0
        await asyncio.to_thread(write, b"".join(held))
    found = f"sha256:{sha256.hexdigest()}"
    if found != digest:
        raise BadRequest(f"the body has digest {found}, not {digest}", param="digest")


def _begun(folder: Path, expected_bytes: int) -> Path:
    """A file of nobody else's, if there is room for what is announced."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in folder.iterdir():
        with suppress(FileNotFoundError):  # another upload removes it, or is done with it
            if old.stat().st_mtime < time.time() - _STALE_SECONDS:
                old.unlink()
    if shutil.disk_usage(folder).free < expected_bytes + SPARE_BYTES:
        raise _no_room()
    handle, name = tempfile.mkstemp(dir=folder)
    os.close(handle)
    return Path(name)


def _no_room() -> Unavailable:
    return Unavailable("there is no room for this file on the gateway's disk")
