"""What an API key looks like, and whether a text is one.

    sk-penstock-k3v90q2mxw7a-<43 characters of secret>-<6 of checksum>

The public id may be logged. The checksum is no secret: it turns typing and
copying errors away before anything is looked up.
"""

import re
import secrets
import string
import zlib

from msgspec import Struct

PREFIX = "sk-penstock-"

_ID_ALPHABET = string.digits + string.ascii_lowercase
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_CHARACTERS = 12
_SECRET_BITS = 256
_SECRET_CHARACTERS = 43  # 256 bits in base 62
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_NUM_PAIRS = len(_PAIRS)
_CHECKSUM_CHARACTERS = 6  # 32 bits in base 62
# Ids may grow one day, so longer ones are read; what follows is of fixed length.
_ID = re.compile(r"[0-9a-z]{12,32}")
_SHAPE = re.compile(r"(sk-penstock-([0-9a-z]{12,32})-([0-9A-Za-z]{43}))-([0-9A-Za-z]{6})")


class Claimed(Struct, frozen=True):
    """What a well-formed key says; whether it is true is for the ledger."""

    id: str
    secret: str


def new_claim(key_id: str | None = None) -> Claimed:
    """A random secret, and a random id unless one is given."""
    new_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARACTERS))
    return Claimed(
        id=new_id if key_id is None else key_id,
        secret=_base62(secrets.randbits(_SECRET_BITS), _SECRET_CHARACTERS),
    )


def written(claim: Claimed) -> str:
    """The key as its owner sees it."""
    body = f"{PREFIX}{claim.id}-{claim.secret}"
    return f"{body}-{_checksum(body)}"


def parsed(text: str) -> Claimed | None:
    """The parts of a key, or None if it has another shape or its checksum is wrong."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    body, key_id, secret, checksum = found.groups()
    return Claimed(key_id, secret) if checksum == _checksum(body) else None


def is_id(text: str) -> bool:
    """Could this be a key's public id?"""
    return _ID.fullmatch(text) is not None


def id_in(text: str) -> str:
    """The public id, or the start of one, in what a person typed: an id, or (part of) a key."""
    return text.removeprefix(PREFIX).partition("-")[0]


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_CHARACTERS)


def _base62(number: int, characters: int) -> str:
    text = ""
    while len(text) < characters:
        text = _PAIRS[number % _NUM_PAIRS] + text
        number //= _NUM_PAIRS
    return text[-characters:]
