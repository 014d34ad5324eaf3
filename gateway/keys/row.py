"""A key as those who run a gateway see it: what it may do and when it was used, never a secret.

The admin API and the command line show it so, and so it is in the audit log.
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from gateway.ledger import ApiKey, KeyState


class KeyRow(Struct, frozen=True, kw_only=True):
    """One key at one moment."""

    id: str
    team: str
    name: str
    role: str
    state: KeyState
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    disabled_at: datetime | None
    revoked_at: datetime | None
    rotated_at: datetime | None
    previous_expires_at: datetime | None  # the secret before the last rotation works until then
    previous_used_at: datetime | None
    models: Sequence[str] | None  # None: all that the team has, here and in the next three
    endpoints: Sequence[str] | None
    networks: Sequence[str] | None
    limits: str | None


_OF_THE_KEY = [name for name in KeyRow.__struct_fields__ if name != "state"]


def row_of(key: ApiKey, now: datetime) -> KeyRow:
    """The key as it is at this moment."""
    return KeyRow(state=key.state(now), **{name: getattr(key, name) for name in _OF_THE_KEY})
