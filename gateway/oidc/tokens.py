"""From a token's text to its claims: read, checked, verified, remembered for a moment.

What was verified is remembered under the SHA-256 of the whole token, never under a part
of it (CVE-2026-35030), and no longer than the token itself is good, than its issuer's
keys stay the same, and than a minute.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from msgspec import Struct

from gateway.call import Principal
from gateway.keys.short_memory import ShortMemory
from gateway.oidc.claims import principal_of
from gateway.oidc.issuer import Fetch, Issuer
from gateway.oidc.issuer_policy import IssuerPolicy
from gateway.oidc.key_set import PublishedKey
from gateway.oidc.token import (
    MAX_TOKEN_CHARACTERS,
    Token,
    TokenRefused,
    check_claims,
    check_header,
    read_token,
)
from gateway.policy import Policy

REMEMBER_SECONDS = 60.0
MAX_REMEMBERED = 10_000


class Tokens:
    """The issuers of one gateway and the tokens just seen. Owned by the event loop."""

    def __init__(
        self,
        fetch: Fetch,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._monotonic = monotonic
        self._is_running = False
        self._issuers: dict[str, tuple[IssuerPolicy, Issuer]] = {}
        self._verified = ShortMemory[_Verified](MAX_REMEMBERED, REMEMBER_SECONDS)

    @asynccontextmanager
    async def running(self, issuers: Mapping[str, IssuerPolicy]) -> AsyncGenerator[None, None]:
        """Keep the keys of these issuers fresh, and of those that policies bring later."""
        self._is_running = True
        for name, policy in issuers.items():
            self._issuer(name, policy)
        try:
            yield
        finally:
            self._is_running = False
            await asyncio.gather(*(issuer.close() for _, issuer in self._issuers.values()))

    async def principal(
        self, text: str, issuers: Mapping[str, IssuerPolicy], policy: Policy
    ) -> Principal:
        """Whose the token is.

        Raises `TokenRefused`; `TeamUnknown` for a good token of nobody's here; and
        `IssuerUnavailable` while there are no keys to verify it with.
        """
        fingerprint = hashlib.sha256(text.encode()).digest()
        known = self._verified.get(fingerprint, self._monotonic())
        if known is not None and known.still_holds(policy, self._clock()):
            return known.principal
        token = read_token(text)
        name, config = _of_issuer(token, issuers)
        check_header(token, config)
        ends_at = check_claims(token, config, self._clock())
        issuer = self._issuer(name, config)
        keys = await issuer.keys_for(token.kid, token.algorithm)
        generation = issuer.generation
        if not any(_is_signed_by(token, key) for key in keys):
            raise TokenRefused("signature" if keys else "key_unknown")
        principal = principal_of(name, config, token.claims, policy.teams)
        verified = _Verified(principal, policy, issuer, generation, ends_at)
        self._verified.put(fingerprint, verified, self._monotonic())
        return principal

    def _issuer(self, name: str, policy: IssuerPolicy) -> Issuer:
        """The issuer of this name; a new one if the policy says something else of it now."""
        known = self._issuers.get(name)
        if known is not None and known[0] == policy:
            return known[1]
        if known is not None:
            known[1].stop()
        issuer = Issuer(name, policy, self._fetch, monotonic=self._monotonic)
        if self._is_running:
            issuer.start()
        self._issuers[name] = (policy, issuer)
        return issuer


class _Verified(Struct, frozen=True):
    principal: Principal
    policy: Policy  # that it was verified under
    issuer: Issuer
    generation: int
    ends_at: float

    def still_holds(self, policy: Policy, now: float) -> bool:
        return (
            self.policy is policy
            and self.generation == self.issuer.generation
            and now < self.ends_at
        )


class _Registry(jws.JWSRegistry):
    """joserfc's own limits are below what an issuer's certificates take in a header."""

    max_header_length = MAX_TOKEN_CHARACTERS
    max_payload_length = MAX_TOKEN_CHARACTERS


def _of_issuer(token: Token, issuers: Mapping[str, IssuerPolicy]) -> tuple[str, IssuerPolicy]:
    """The one issuer that the token claims to be of: another's keys are never tried."""
    claimed = token.claims.get("iss")
    for name, policy in issuers.items():
        if policy.issuer == claimed:
            return name, policy
    raise TokenRefused("issuer")


def _is_signed_by(token: Token, key: PublishedKey) -> bool:
    # One algorithm, and one key that the token did not bring: both were decided before.
    registry = _Registry(algorithms=[token.algorithm], strict_check_header=False)
    try:
        signed: Any = jws.deserialize_compact(token.text, key.key, registry=registry)
    except (JoseError, ValueError, TypeError):
        return False
    return bool(signed)
