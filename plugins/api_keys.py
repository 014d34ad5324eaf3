"""Identifies callers by API key, in any of the three headers that clients use."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway import Call, Principal, Unauthenticated, hookimpl
from gateway.keys import PREFIX

if TYPE_CHECKING:
    from gateway.gateway import Gateway

_CHALLENGE = {"www-authenticate": "Bearer"}


class ApiKeys:
    """Looks keys up with `gateway.keys`.

    Every header goes through the same check: a rule that holds for one of them
    only is a way round it. What does not look like a key of ours is left to the
    next plugin, since clients that need no key often send a dummy.
    """

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    @hookimpl
    async def identify(self, call: Call, headers: Mapping[str, str]) -> Principal | None:
        """The key's principal; None without a key of ours. Raises `Unauthenticated`."""
        presented = _presented(headers)
        if len(presented) > 1:
            raise Unauthenticated(
                "the request carries two different credentials; send one", headers=_CHALLENGE
            )
        if not presented:
            return None
        credential = presented.pop()
        if not credential.lower().startswith(PREFIX):
            return None
        key = await self._gateway.keys.verify(credential)
        if key is None:
            raise Unauthenticated(
                "the API key is not valid: it is unknown, incomplete, revoked or expired",
                headers=_CHALLENGE,
            )
        return Principal(name=key.name, team=key.team, key_id=key.id)


def _presented(headers: Mapping[str, str]) -> set[str]:
    """The different credentials in the headers; an empty one is none."""
    authorization = headers.get("authorization", "").strip()
    scheme, _, token = authorization.partition(" ")
    bearer = token if scheme.lower() == "bearer" else authorization
    candidates = (bearer, headers.get("x-api-key", ""), headers.get("api-key", ""))
    return {credential for candidate in candidates if (credential := candidate.strip())}
