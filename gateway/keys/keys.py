"""What can be done with API keys.

The ledger holds an HMAC of each key's secret under a pepper that is not in the ledger,
so a stolen ledger lets nobody in. A change is felt here at once and by every other
process that shares the ledger within a second (gateway/keys/known_keys.py).
"""

import hmac
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from gateway.call import Role
from gateway.errors import BadRequest
from gateway.keys.invalidations import Invalidations, OwnProcess
from gateway.keys.known_keys import KnownKeys
from gateway.keys.last_use import LastUse
from gateway.keys.pepper import Pepper
from gateway.keys.text import Claimed, new_claim, parsed, written
from gateway.ledger import MAX_NAME_CHARACTERS, ApiKey, KeyChange, Ledger
from gateway.narrowing import NOT_NARROWED, Narrowing, narrowing_problems

log: Any = structlog.get_logger()

REMEMBER_SECONDS = 600.0


class NewKey(Struct, frozen=True):
    """A key just made. `secret` is the whole key, seen here and never again."""

    secret: str
    key: ApiKey


class Keys:
    """The keys of one gateway, owned by its event loop.

    `async with` it, or `close()` it at the end: the last uses are written then. What
    changes a key returns it before and after, or None if there is no such key.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        pepper: Pepper,
        invalidations: Invalidations | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._pepper = pepper
        self._clock = clock
        self._known = KnownKeys(ledger, monotonic=monotonic)
        self._last_use = LastUse(ledger)
        self._invalidations = invalidations or OwnProcess()
        self._resources = AsyncExitStack()

    async def create(
        self,
        team: str,
        name: str,
        expires_in: timedelta | None = None,
        *,
        role: Role = "member",
        narrowing: Narrowing = NOT_NARROWED,
    ) -> NewKey:
        """Make a key; the answer holds the only copy of the secret there will ever be.

        Whether its maker may do so is for `check_minting` to say. Raises `BadRequest`
        for a name, team, time or narrowing that cannot be.
        """
        _check_text("team", team)
        _check_text("name", name)
        _check_narrowing(narrowing)
        now = self._now()
        claim = new_claim()
        key = ApiKey(
            id=claim.id,
            team=team,
            name=name,
            role=role,
            created_at=now,
            expires_at=_later(now, expires_in),
            digest=self._new_digest(claim),
            pepper_version=self._pepper.version,
            **_columns(narrowing),
        )
        await self._ledger.insert_key(key)
        return NewKey(secret=written(claim), key=key)

    async def verify(
        self, presented: str, *, patience_seconds: float = REMEMBER_SECONDS
    ) -> ApiKey | None:
        """The key that was presented, or None; why not is not for the caller to know.

        `patience_seconds` is how long a key that is known stays good while the ledger
        does not answer. Raises `LedgerUnavailable` when it must look and cannot.
        """
        claimed = parsed(presented)
        if claimed is None:
            return None
        found = await self._known.find(claimed.id, patience_seconds=patience_seconds)
        key = found or _NOBODYS  # an id that is not there costs the same work
        now = self._now()
        is_current = self._fits(claimed, key.digest, key.pepper_version)
        is_previous = not is_current and self._fits_previous(claimed, key, now)
        if key is _NOBODYS or not (is_current or is_previous) or not key.is_usable(now):
            return None
        self._last_use.note(key.id, now, previous=is_previous)
        return key

    async def get(self, key_id: str) -> ApiKey | None:
        """One key, as the ledger has it."""
        return await self._ledger.key(key_id)

    async def list(self, team: str | None = None) -> Sequence[ApiKey]:
        """Every key ever made, or every one of a team, oldest first."""
        return await self._ledger.keys(team)

    async def revoke(self, key_id: str) -> KeyChange | None:
        """End a key for good; the first revocation's time stands."""
        now = self._now()
        return await self._changed(key_id, lambda key: _with(key, revoked_at=key.revoked_at or now))

    async def disable(self, key_id: str) -> KeyChange | None:
        """Stop a key until it is enabled again."""
        now = self._now()
        return await self._changed(
            key_id, lambda key: _with(key, disabled_at=key.disabled_at or now)
        )

    async def enable(self, key_id: str) -> KeyChange | None:
        """Take back `disable`. Raises `BadRequest` for a key that has ended."""

        def enabled(key: ApiKey) -> ApiKey:
            self._check_not_ended(key)
            return _with(key, disabled_at=None)

        return await self._changed(key_id, enabled)

    async def expire(self, key_id: str, expires_in: timedelta | None) -> KeyChange | None:
        """Let a key end after that time from now, or never. Raises `BadRequest`.

        One that has ended stays so: who holds it may have stopped guarding it.
        """
        expires_at = _later(self._now(), expires_in)

        def expiring(key: ApiKey) -> ApiKey:
            self._check_not_ended(key)
            return _with(key, expires_at=expires_at)

        return await self._changed(key_id, expiring)

    async def narrow(self, key_id: str, narrowing: Narrowing) -> KeyChange | None:
        """Replace what a key may do less than its team. Raises `BadRequest`."""
        _check_narrowing(narrowing)

        def narrowed(key: ApiKey) -> ApiKey:
            self._check_not_ended(key)
            return _with(key, **_columns(narrowing))

        return await self._changed(key_id, narrowed)

    async def rotate(self, key_id: str, grace: timedelta) -> tuple[NewKey, KeyChange] | None:
        """Give a key a new secret; the one before works on for `grace`.

        Id, rights and limits stay: it is the same key. With no grace every earlier
        secret ends at once; with some, only one earlier secret may still be working.
        Raises `BadRequest`.
        """
        claim = new_claim(key_id)
        digest, now = self._new_digest(claim), self._now()
        ends_at = now if grace == timedelta(0) else _later(now, grace, "grace_seconds")

        def rotated(key: ApiKey) -> ApiKey:
            self._check_not_ended(key)
            if grace and key.previous_is_usable(now):
                raise BadRequest(
                    f"the secret before the last rotation works until "
                    f"{key.previous_expires_at:%Y-%m-%d %H:%M} UTC, and only one may: wait until "
                    "then, or rotate with a grace of 0, which ends both",
                    param="grace_seconds",
                )
            return _with(
                key,
                digest=digest,
                pepper_version=self._pepper.version,
                rotated_at=now,
                previous_digest=key.digest if grace else None,
                previous_pepper_version=key.pepper_version if grace else None,
                previous_expires_at=ends_at if grace else None,
                previous_used_at=key.last_used_at if grace else None,
                last_used_at=None,
            )

        change = await self._changed(key_id, rotated)
        return None if change is None else (NewKey(written(claim), change.after), change)

    async def announce(self, key_id: str) -> None:
        """Forget a key, and have others forget it; for after a transaction that changed it.

        Within one, whoever looked before it ended has remembered the key as it was.
        """
        self._known.forget(key_id)
        await self._invalidations.announce(key_id)

    async def flush(self) -> None:
        """Write the last uses to the ledger, or keep them if it does not answer."""
        await self._last_use.flush()

    async def close(self) -> None:
        """Let the look-ups under way end and write the last uses."""
        await self._resources.aclose()
        await self._known.close()
        await self._last_use.close()

    async def __aenter__(self) -> "Keys":
        listening = self._invalidations.listening(self._known.forget)
        await self._resources.enter_async_context(listening)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _changed(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> KeyChange | None:
        found = await self._ledger.change_key(key_id, change)
        self._known.forget(key_id)
        if found is not None and found.after != found.before:
            await self._invalidations.announce(key_id)
        return found

    def _new_digest(self, claim: Claimed) -> bytes:
        digest = self._pepper.digest(self._pepper.version, claim.id, claim.secret)
        assert digest is not None, "the newest pepper is always here"
        return digest

    def _fits(self, claimed: Claimed, digest: bytes, pepper_version: str) -> bool:
        version = pepper_version or self._pepper.version
        claimed_digest = self._pepper.digest(version, claimed.id, claimed.secret)
        if claimed_digest is None:
            log.error("key_pepper_missing", key=claimed.id, pepper_version=version)
            return False
        return hmac.compare_digest(claimed_digest, digest)

    def _fits_previous(self, claimed: Claimed, key: ApiKey, now: datetime) -> bool:
        if key.previous_digest is None or not key.previous_is_usable(now):
            return False
        return self._fits(claimed, key.previous_digest, key.previous_pepper_version or "")

    def _check_not_ended(self, key: ApiKey) -> None:
        state = key.state(self._now())
        if state in ("revoked", "expired"):
            raise BadRequest(f"key {key.id} is {state}, and that is for good; make a new one")

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


_NOBODYS = ApiKey(
    id="",
    team="",
    name="",
    created_at=datetime.fromtimestamp(0, UTC),
    digest=bytes(32),
    pepper_version="",
)


def _with(key: ApiKey, **changes: Any) -> ApiKey:
    return msgspec.structs.replace(key, **changes)


def _columns(narrowing: Narrowing) -> dict[str, Any]:
    lists = {
        field: None if patterns is None else tuple(patterns)
        for field in ("models", "endpoints", "networks")
        for patterns in [getattr(narrowing, field)]
    }
    return {**lists, "limits": narrowing.limits}


def _check_narrowing(narrowing: Narrowing) -> None:
    for field, problem in narrowing_problems(narrowing):
        raise BadRequest(problem, param=field)


def _check_text(param: str, text: str) -> None:
    if not text.strip() or len(text) > MAX_NAME_CHARACTERS or not text.isprintable():
        raise BadRequest(
            f"the {param} of a key is 1 to {MAX_NAME_CHARACTERS} printable characters, "
            f"not {text[:40]!r}",
            param=param,
        )


def _later(
    now: datetime, expires_in: timedelta | None, param: str = "expires_seconds"
) -> datetime | None:
    if expires_in is None:
        return None
    try:
        expires_at = now + expires_in
    except OverflowError:
        expires_at = now
    if expires_at <= now:
        raise BadRequest(
            f"a key expires after a time that is more than nothing and ends before "
            f"the year 9999, not {expires_in}",
            param=param,
        )
    return expires_at
