"""Identifies callers by the tokens of OpenID Connect issuers."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import structlog
from msgspec import Struct

from gateway import Call, Forbidden, Principal, Unauthenticated, hookimpl
from gateway.credentials import CHALLENGE, presented_credential
from gateway.oidc import IssuerPolicy, TeamUnknown, TokenRefused, Tokens, looks_like_token
from gateway.oidc.fetching import FETCH_SECONDS, fetch_json

if TYPE_CHECKING:
    from gateway.gateway import Gateway

log: Any = structlog.get_logger()


class Oidc:
    """Accepts a token in any of the headers that take a key.

    What does not look like a token is left to the next plugin. What does is either good
    or refused: it never falls through.
    """

    class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """`[oidc]` of gateway.toml."""

        issuers: Mapping[str, IssuerPolicy]

        def __post_init__(self) -> None:
            urls = [policy.issuer for policy in self.issuers.values()]
            if not urls:
                raise ValueError("no issuer: add a table [oidc.issuers.NAME]")
            if len(set(urls)) < len(urls):
                raise ValueError("two issuers have the same `issuer`")

        def named_teams(self) -> Mapping[str, str]:
            """The teams that tokens are mapped to, by where they stand in the table."""
            return {
                f'issuers.{name}.teams."{value}"': team
                for name, policy in self.issuers.items()
                for value, team in policy.teams.items()
            }

    table: ClassVar[type[Struct]] = Table

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._tokens = Tokens(self._fetched)

    @hookimpl
    @asynccontextmanager
    async def lifespan(self, gateway: "Gateway") -> AsyncGenerator[None, None]:
        """Fetch the issuers' keys now, and again in the background."""
        issuers = gateway.policy.table("oidc", Oidc.Table).issuers
        async with httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as client:
            self._client = client
            async with self._tokens.running(issuers):
                yield

    @hookimpl
    async def identify(self, call: Call, headers: Mapping[str, str]) -> Principal | None:
        """The token's holder; None without a token. Raises `Unauthenticated`."""
        credential = presented_credential(headers)
        if credential is None or not looks_like_token(credential):
            return None
        issuers = call.policy.table("oidc", Oidc.Table).issuers
        try:
            return await self._tokens.principal(credential, issuers, call.policy)
        except TokenRefused as refused:
            log.info("token_refused", reason=refused.reason)
            raise Unauthenticated("the token is not valid here", headers=CHALLENGE) from None
        except TeamUnknown:
            log.warning("token_team_unknown")
            raise Forbidden(
                "your token names no team of this gateway; ask whoever runs it"
            ) from None

    async def _fetched(self, url: str) -> dict[str, Any]:
        assert self._client is not None, "the gateway is not running"
        return await fetch_json(self._client, url)
