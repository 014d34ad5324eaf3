"""Identifies callers by API key."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta, Struct

from gateway import Call, Principal, Unauthenticated, hookimpl
from gateway.credentials import CHALLENGE, presented_credential
from gateway.keys import PREFIX, REMEMBER_SECONDS

if TYPE_CHECKING:
    from gateway.gateway import Gateway


class ApiKeys:
    """Looks keys up with `gateway.keys`.

    What does not look like a key of ours is left to the next plugin, since clients that
    need no key often send a dummy.
    """

    class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """`[api_keys]` of gateway.toml."""

        # How long a key that this process knows stays good while the ledger does not answer.
        remember_seconds: Annotated[float, Meta(ge=0, le=86400)] = REMEMBER_SECONDS

    table: ClassVar[type[Struct]] = Table

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    @hookimpl
    async def identify(self, call: Call, headers: Mapping[str, str]) -> Principal | None:
        """The key's principal; None without a key of ours. Raises `Unauthenticated`."""
        credential = presented_credential(headers)
        if credential is None or not credential.lower().startswith(PREFIX):
            return None
        patience = call.policy.table("api_keys", ApiKeys.Table).remember_seconds
        key = await self._gateway.keys.verify(credential, patience_seconds=patience)
        if key is None:
            raise Unauthenticated(
                "the API key is not valid: it is unknown, incomplete, disabled, revoked or expired",
                headers=CHALLENGE,
            )
        return Principal(
            name=key.name, team=key.team, key_id=key.id, role=key.role, narrowing=key.narrowing
        )
