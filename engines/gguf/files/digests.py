"""SHA-256 digests: what a blob is called, and what it must be.

A digest that came from a registry or a manifest is text that anybody could have
written. `parse_digest` makes a `Digest` of it or refuses it; only a `Digest` has
a file name.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

_DIGEST = re.compile("sha256[:-]([0-9a-f]{64})")
_CHUNK_BYTES = 4 * 1024 * 1024


class DigestInvalid(ValueError):
    """Not `sha256:` and 64 hexadecimal digits; the message shows what it was."""


class Digest(Struct, frozen=True):
    """A SHA-256 digest, as 64 lower-case hexadecimal digits."""

    hexadecimal: str

    def __str__(self) -> str:
        return f"sha256:{self.hexadecimal}"

    @property
    def file_name(self) -> str:
        """What the blob is called on disk."""
        return f"sha256-{self.hexadecimal}"

    @property
    def short(self) -> str:
        """The first 12 digits, which people are shown."""
        return self.hexadecimal[:12]


def parse_digest(text: object) -> Digest:
    """Read a digest. Raises `DigestInvalid`."""
    found = _DIGEST.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise DigestInvalid(f"{text!r:.100} is not sha256: and 64 hexadecimal digits")
    return Digest(found[1])


def digest_of(data: bytes) -> Digest:
    """The digest of some bytes."""
    return Digest(hashlib.sha256(data).hexdigest())


def digest_of_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> Digest:
    """The digest of a file's content, read whole; `on_bytes` is told of each piece's length."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    return Digest(found.hexdigest())
