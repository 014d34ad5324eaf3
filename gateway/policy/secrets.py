"""Secrets in a policy are references: `{ env = "NAME" }` or `{ file = "path" }`.

A policy is read, printed, compared and kept in version control; a secret written
in it would be too. So a literal is refused, and a `Secret` holds only the name of
the place. The value is read when `reveal()` is called and kept nowhere.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

HOW_TO_WRITE = '{ env = "NAME" } or { file = "path" }'
_MAX_BYTES = 64 * 1024


class SecretMissing(ValueError):
    """What a reference points at is not there; the message names the reference."""


class Secret(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a secret is kept: exactly one of an environment variable and a file.

    A relative `file` counts from the policy directory; the loader makes it whole.
    """

    env: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError(f"a secret names exactly one place: {HOW_TO_WRITE}")
        if not (self.env or self.file):
            raise ValueError("a secret's place has no name")

    def reveal(self, environ: Mapping[str, str] = os.environ) -> str:
        """The secret itself, read anew each time. Raises `SecretMissing`."""
        if self.env is not None:
            value = environ.get(self.env, "")
            if not value:
                raise SecretMissing(f"environment variable {self.env} is not set")
            return value
        return _content_of(Path(self.file or ""))


def _content_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise SecretMissing(f"secret file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SecretMissing(f"secret file {path} is not UTF-8 text") from None
    except ValueError:
        raise SecretMissing("the secret's file name holds a NUL character") from None
    if len(content) > _MAX_BYTES:
        raise SecretMissing(f"secret file {path} is over {_MAX_BYTES // 1024} KiB")
    # Editors and `kubectl create secret` end a file with a newline; no secret does.
    value = text.rstrip("\r\n")
    if not value:
        raise SecretMissing(f"secret file {path} is empty")
    return value
