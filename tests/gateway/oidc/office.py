"""Tokens of a test issuer, verified as a gateway does, with clocks that can be moved."""

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from gateway import Principal
from gateway.oidc import IssuerPolicy, Tokens
from gateway.oidc.fetching import fetch_json
from gateway.policy import Policy, TeamPolicy
from tests.fakes import FakeClock
from tests.identity_provider import AUDIENCE, IdentityProvider
from tests.plugins.policies import policy_of

TEAMS = [TeamPolicy(name=name, models=["*"], endpoints=["*"]) for name in ("search", "apps")]


class Office:
    """Where tokens are judged: the issuers of a policy, and real HTTP to reach them."""

    def __init__(self, client: httpx.AsyncClient, issuers: Mapping[str, IssuerPolicy]) -> None:
        self.clock = FakeClock(time.time())
        self.monotonic = FakeClock()
        self.issuers = issuers
        self.policy: Policy = policy_of(teams=TEAMS)
        self.fetched: list[str] = []
        self._client = client
        self.tokens = Tokens(self._fetch, clock=self.clock, monotonic=self.monotonic)

    async def principal(self, token: str) -> Principal:
        return await self.tokens.principal(token, self.issuers, self.policy)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.monotonic.advance(seconds)

    async def _fetch(self, url: str) -> dict[str, Any]:
        self.fetched.append(url)
        return await fetch_json(self._client, url)


def trusting(provider: IdentityProvider, **changes: Any) -> IssuerPolicy:
    return IssuerPolicy(**{"issuer": provider.url, "audiences": [AUDIENCE], **changes})


@asynccontextmanager
async def open_office(**issuers: IssuerPolicy) -> AsyncGenerator[Office, None]:
    async with httpx.AsyncClient() as client:
        yield Office(client, issuers)
