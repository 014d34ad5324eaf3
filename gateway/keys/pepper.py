"""The secret that is mixed into every key's digest and is not in the ledger.

It comes from `PENSTOCK_PEPPER`, or from a file in the data directory that the
first process to need it makes. Several may be given, newest first and with space
between: new keys use the first, older keys keep working.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path

from gateway.ledger.private_files import create_once, keep_private
from gateway.settings import Settings

_MIN_CHARACTERS = 32


class PepperInvalid(ValueError):
    """There is no usable pepper where one should be; the message says where and what to do."""


class Pepper:
    """The peppers of one gateway: the first makes digests, any may check them.

    A pepper's version is drawn from its value, so a key says which pepper it needs
    and nobody has to number them.
    """

    def __init__(self, values: Sequence[bytes]) -> None:
        self._values = {_version_of(value): value for value in values}
        self.version = _version_of(values[0])

    def digest(self, version: str, key_id: str, secret: str) -> bytes | None:
        """The digest under that version, or None if its pepper is not here.

        The id is mixed in so that no row of the ledger can stand in for another.
        """
        value = self._values.get(version)
        if value is None:
            return None
        return hmac.digest(value, f"{key_id}-{secret}".encode(), "sha256")


def open_pepper(settings: Settings) -> Pepper:
    """The pepper of these settings, made now if it is the first time. Raises `PepperInvalid`."""
    if settings.pepper:
        return _read(
            settings.pepper, "PENSTOCK_PEPPER", "`openssl rand -hex 32` prints one that is"
        )
    file = settings.data_dir / "pepper"
    try:
        if not create_once(file, _write):
            keep_private(file)
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PepperInvalid(
            f"the pepper file {file} cannot be made or read: {error}; PENSTOCK_DATA_DIR "
            "names another directory, or PENSTOCK_PEPPER gives the value itself"
        ) from error
    return _read(
        text,
        f"the pepper file {file}",
        "put its backup back; if there is none, delete it and make every key again",
    )


def _write(path: Path) -> None:
    path.write_text(secrets.token_hex(32) + "\n", encoding="ascii")


def _read(text: str, source: str, way_out: str) -> Pepper:
    values = text.split()
    if not values or any(len(value) < _MIN_CHARACTERS for value in values):
        raise PepperInvalid(
            f"{source} is not a pepper of {_MIN_CHARACTERS} characters or more; {way_out}"
        )
    return Pepper([value.encode() for value in values])


def _version_of(value: bytes) -> str:
    return hashlib.sha256(b"penstock pepper version\0" + value).hexdigest()[:12]
