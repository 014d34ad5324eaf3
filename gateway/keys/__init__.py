"""API keys: made, shown once, checked on every call, revoked.

The ledger holds an HMAC of each key's secret under a pepper that is not in the
ledger, so a stolen ledger lets nobody in. What a key looks like is in text.py,
where the pepper comes from in pepper.py.

What was looked up is remembered for five seconds, under the SHA-256 of the whole
text that was presented and never under a part of it. Five seconds is also how
late a revocation by another process may come.
"""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

import structlog
from msgspec import Struct

from gateway.errors import BadRequest, LedgerUnavailable
from gateway.keys.pepper import Pepper, PepperInvalid, open_pepper
from gateway.keys.short_memory import ShortMemory
from gateway.keys.text import PREFIX, Claimed, id_in, new_claim, parsed, written
from gateway.ledger import MAX_NAME_CHARACTERS, ApiKey, Ledger

__all__ = [
    "PREFIX",
    "ApiKey",
    "Keys",
    "NewKey",
    "Pepper",
    "PepperInvalid",
    "id_in",
    "open_pepper",
]

log: Any = structlog.get_logger()

REMEMBER_SECONDS = 5.0
LOOK_UP_SECONDS = 2.0  # a slow database is worse than a dead one
TOUCH_SECONDS = 10.0  # how late `last_used_at` may be in the ledger
MAX_GOOD_REMEMBERED = 10_000
MAX_BAD_REMEMBERED = 1_000


class NewKey(Struct, frozen=True):
    """A key just made. `secret` is the whole key, seen here and never again."""

    secret: str
    key: ApiKey


class Keys:
    """The keys of one gateway, owned by its event loop.

    `async with` it, or `close()` it at the end: the last uses are written then.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        pepper: Pepper,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._pepper = pepper
        self._clock = clock
        self._monotonic = monotonic
        self._good = ShortMemory[ApiKey](MAX_GOOD_REMEMBERED, REMEMBER_SECONDS)
        self._bad = ShortMemory[str](MAX_BAD_REMEMBERED, REMEMBER_SECONDS)
        self._look_ups: dict[str, asyncio.Task[_Found]] = {}
        self._revocations = 0
        self._last_used: dict[str, datetime] = {}
        self._toucher: asyncio.Task[None] | None = None

    async def create(self, team: str, name: str, expires_in: timedelta | None = None) -> NewKey:
        """Make a key; the answer holds the only copy of the secret there will ever be.

        Raises `BadRequest` for a name, team or time that cannot be.
        """
        _check_text("team", team)
        _check_text("name", name)
        now = self._now()
        claim = new_claim()
        digest = self._pepper.digest(self._pepper.version, claim.id, claim.secret)
        assert digest is not None, "the newest pepper is always here"
        key = ApiKey(
            id=claim.id,
            team=team,
            name=name,
            created_at=now,
            expires_at=_later(now, expires_in),
            digest=digest,
            pepper_version=self._pepper.version,
        )
        await self._ledger.insert_key(key)
        return NewKey(secret=written(claim), key=key)

    async def verify(self, presented: str) -> ApiKey | None:
        """The key that was presented, or None; why not is not for the caller to know.

        Raises `LedgerUnavailable` when it must look and cannot.
        """
        claimed = parsed(presented)
        if claimed is None:
            return None
        fingerprint = hashlib.sha256(presented.encode()).digest()
        now = self._monotonic()
        key = self._good.get(fingerprint, now)
        if key is None:
            if self._bad.get(fingerprint, now) is not None:
                return None
            key = await self._checked(fingerprint, claimed)
        if key is None or not key.is_usable(self._now()):
            return None
        self._touch(key.id)
        return key

    async def list(self) -> Sequence[ApiKey]:
        """Every key ever made, oldest first."""
        return await self._ledger.keys()

    async def revoke(self, key_id: str) -> ApiKey | None:
        """End a key for good, in this process at once; None if there is no such key."""
        key = await self._ledger.revoke_key(key_id, self._now())
        self._revocations += 1
        self._good.forget(lambda remembered: remembered.id == key_id)
        return key

    async def flush(self) -> None:
        """Write the last uses to the ledger, or keep them if it does not answer."""
        last_used, self._last_used = self._last_used, {}
        written_down = False
        try:
            await self._ledger.touch_keys(last_used)
            written_down = True
        except LedgerUnavailable:
            pass
        finally:
            if not written_down:
                self._last_used = last_used | self._last_used

    async def close(self) -> None:
        """Let the look-ups under way end and write the last uses."""
        await asyncio.gather(*self._look_ups.values(), return_exceptions=True)
        if self._toucher is not None:
            self._toucher.cancel()
            await asyncio.gather(self._toucher, return_exceptions=True)
        await self.flush()

    async def __aenter__(self) -> "Keys":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _checked(self, fingerprint: bytes, claimed: Claimed) -> ApiKey | None:
        found = await self._looked_up(claimed.id)
        key = found.key or _NOBODYS  # an id that is not there costs the same work
        if not self._fits(key, claimed) or key is _NOBODYS:
            self._bad.put(fingerprint, claimed.id, found.at)
            return None
        # A record that was read before a revocation must not outlive it here.
        if found.revocations == self._revocations:
            self._good.put(fingerprint, key, found.at)
        return key

    def _fits(self, key: ApiKey, claimed: Claimed) -> bool:
        version = key.pepper_version or self._pepper.version
        digest = self._pepper.digest(version, claimed.id, claimed.secret)
        if digest is None:
            log.error("key_pepper_missing", key=key.id, pepper_version=version)
            return False
        return hmac.compare_digest(digest, key.digest)

    async def _looked_up(self, key_id: str) -> "_Found":
        """Read one record; who asks for the same id meanwhile shares the answer."""
        task = self._look_ups.get(key_id)
        if task is None:
            task = asyncio.create_task(self._read(key_id))
            self._look_ups[key_id] = task
            task.add_done_callback(lambda done: self._look_up_ended(key_id, done))
        # A caller that hangs up must not end the look-up for the others.
        return await asyncio.shield(task)

    async def _read(self, key_id: str) -> "_Found":
        at, revocations = self._monotonic(), self._revocations
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS):
                key = await self._ledger.key(key_id)
        except TimeoutError as error:
            log.error("ledger_slow", seconds=LOOK_UP_SECONDS)
            raise LedgerUnavailable from error
        return _Found(key, at, revocations)

    def _look_up_ended(self, key_id: str, task: "asyncio.Task[_Found]") -> None:
        self._look_ups.pop(key_id, None)
        if not task.cancelled():
            task.exception()  # asyncio complains of a failure that nobody asked for

    def _touch(self, key_id: str) -> None:
        self._last_used[key_id] = self._now()
        if self._toucher is None or self._toucher.done():
            self._toucher = asyncio.create_task(self._touch_ledger())

    async def _touch_ledger(self) -> None:
        while self._last_used:
            await asyncio.sleep(TOUCH_SECONDS)
            await self.flush()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


class _Found(Struct, frozen=True):
    """What a look-up read, when it began, and how many revocations it had seen by then."""

    key: ApiKey | None
    at: float
    revocations: int


_NOBODYS = ApiKey(
    id="",
    team="",
    name="",
    created_at=datetime.fromtimestamp(0, UTC),
    digest=bytes(32),
    pepper_version="",
)


def _check_text(param: str, text: str) -> None:
    if not text.strip() or len(text) > MAX_NAME_CHARACTERS or not text.isprintable():
        raise BadRequest(
            f"the {param} of a key is 1 to {MAX_NAME_CHARACTERS} printable characters, "
            f"not {text[:40]!r}",
            param=param,
        )


def _later(now: datetime, expires_in: timedelta | None) -> datetime | None:
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
            param="expires_in",
        )
    return expires_at
