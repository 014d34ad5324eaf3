"""The keys of one issuer: found by discovery, refreshed in the background, kept while it
is away.

Owned by the event loop. At most one fetch is under way; who needs it waits for that one.
A key that is not known is a reason to fetch, once in `UNKNOWN_KEY_SECONDS`: otherwise
made-up key ids would make the gateway flood the issuer.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Any

import structlog

from gateway.errors import IssuerUnavailable
from gateway.oidc.fetching import FetchFailed
from gateway.oidc.issuer_policy import IssuerPolicy, url_problem
from gateway.oidc.key_set import KeySet, KeySetInvalid, PublishedKey, read_key_set

log: Any = structlog.get_logger()

UNKNOWN_KEY_SECONDS = 10.0
AGAIN_SECONDS = 15.0  # after a fetch that failed
# A key that was withdrawn must not be good for ever only because its issuer cannot be reached.
MAX_AGE_SECONDS = 24 * 3600.0

Fetch = Callable[[str], Awaitable[dict[str, Any]]]  # raises FetchFailed


class Issuer:
    """One issuer, by the name that the policy gives it."""

    def __init__(
        self,
        name: str,
        policy: IssuerPolicy,
        fetch: Fetch,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.url = policy.issuer
        self.generation = 0  # grows when the keys change
        self._policy = policy
        self._fetch = fetch
        self._monotonic = monotonic
        self._keys: KeySet | None = None
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._unknown_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None
        self._keeping_fresh: asyncio.Task[None] | None = None

    async def keys_for(self, kid: str | None, algorithm: str) -> Sequence[PublishedKey]:
        """The keys that may verify a token with this header; none if it is not the issuer's.

        Raises `IssuerUnavailable` while there are no keys to go by.
        """
        keys = await self._some_keys()
        if not keys.has(kid) and self._may_ask_for_unknown():
            await self.refresh()
            keys = await self._some_keys()
        return keys.verifying(kid, algorithm)

    async def refresh(self) -> None:
        """Fetch the keys; what was there stays if that fails."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._refresh(), context=Context())
        # A caller that hangs up must not end it for the others.
        await asyncio.shield(self._fetching)

    def start(self) -> None:
        """Fetch the keys, and again every so often, until `stop()` or `close()`."""
        self._keeping_fresh = asyncio.create_task(self._keep_fresh(), context=Context())

    def stop(self) -> None:
        """Refresh no more by itself."""
        if self._keeping_fresh is not None:
            self._keeping_fresh.cancel()

    async def close(self) -> None:
        """End what is under way."""
        tasks = [task for task in (self._keeping_fresh, self._fetching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_fresh(self) -> None:
        while True:
            await self.refresh()
            failed = self._tried_at != self._fetched_at
            pause = self._policy.refresh_seconds
            await asyncio.sleep(min(AGAIN_SECONDS, pause) if failed else pause)

    async def _some_keys(self) -> KeySet:
        """The keys as they are, fetched now only if there are none that count."""
        if self._keys is None or self._is_too_old():
            is_under_way = self._fetching is not None and not self._fetching.done()
            if is_under_way or self._monotonic() - self._tried_at >= AGAIN_SECONDS:
                await self.refresh()
        if self._keys is None or self._is_too_old():
            raise IssuerUnavailable
        return self._keys

    def _is_too_old(self) -> bool:
        return self._monotonic() - self._fetched_at > MAX_AGE_SECONDS

    def _may_ask_for_unknown(self) -> bool:
        now = self._monotonic()
        if now - self._unknown_at < UNKNOWN_KEY_SECONDS:
            return False
        self._unknown_at = now
        return True

    async def _refresh(self) -> None:
        self._tried_at = at = self._monotonic()
        try:
            keys = read_key_set(await self._fetch(await self._jwks_url()))
        except (FetchFailed, KeySetInvalid) as error:
            log.error(
                "issuer_keys_not_fetched",
                issuer=self.name,
                reason=str(error)[:300],
                has_keys=self._keys is not None,
            )
            return
        except Exception:
            log.exception("issuer_keys_not_fetched", issuer=self.name)
            return
        if self._keys is None or _names(keys) != _names(self._keys):
            log.info("issuer_keys_changed", issuer=self.name, keys=len(keys.keys))
            self.generation += 1
        self._keys, self._fetched_at = keys, at

    async def _jwks_url(self) -> str:
        """As the policy says, else as the issuer's own document does (OIDC Discovery 4)."""
        if self._policy.jwks_url is not None:
            return self._policy.jwks_url
        from authlib.oidc.discovery import get_well_known_url

        found: Any = get_well_known_url(self.url, external=True)
        document = await self._fetch(found)
        if document.get("issuer") != self.url:
            raise FetchFailed(f"{found} is of another issuer than {self.url}")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise FetchFailed(f"{found} has no jwks_uri")
        if problem := url_problem(url):
            raise FetchFailed(f"the jwks_uri in {found} {problem}")
        return url


def _names(keys: KeySet) -> list[tuple[str | None, str | None, str]]:
    """What tells key sets apart: ids, and the keys themselves."""
    return sorted(
        ((key.kid, key.algorithm, key.key.thumbprint()) for key in keys.keys),
        key=lambda name: (name[0] or "", name[1] or "", name[2]),
    )
