"""Earns the right to ask a registry: logins and tokens.

A 401 names a realm that gives tokens for a scope. The realm is whatever the
registry says it is, so our login goes there only if it is the registry's own
host; any other gives its token to anybody, or none to us.
"""

import re

import msgspec
from msgspec import Struct
from yarl import URL

from engines.errors import EngineError, RequestRefused, Unavailable
from engines.gguf.registry.web import Asked, Refused, Web, checked_url

_MAX_TOKEN_BYTES = 64 * 1024
_CHALLENGE = re.compile(r"(Bearer|Basic)\s+(.*)", re.IGNORECASE | re.DOTALL)
_FIELD = re.compile(r'([a-z_]+)\s*=\s*"([^"\r\n]{0,2000})"', re.IGNORECASE)
_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}")


class _Answer(Struct):
    token: str = ""
    access_token: str = ""


class Authorization:
    """What we may say of ourselves to one registry; lives as long as its `Web`."""

    def __init__(self, web: Web, registry: URL, login: str | None) -> None:
        self._web = web
        self._registry = registry
        self._login = login
        self.header: str | None = None

    async def renew(self, refused: Refused) -> str | None:
        """Do what a 401 of the registry asks for; None if there is nothing more to try.

        Raises any `EngineError` for a challenge that must not, or cannot, be met."""
        if refused.url.origin() != self._registry.origin():
            return None  # of some storage that it sent us to
        found = _CHALLENGE.fullmatch(refused.headers.get("WWW-Authenticate", "").strip())
        if found is None:
            return None
        if found[1].lower() == "basic":
            is_new = self._login is not None and self.header != self._login
            self.header = self._login
            return self.header if is_new else None
        self.header = f"Bearer {await self._token(dict(_FIELD.findall(found[2])))}"
        return self.header

    async def _token(self, challenge: dict[str, str]) -> str:
        host = self._registry.host
        try:
            realm = checked_url(challenge.get("realm", ""))
        except RequestRefused:
            raise Unavailable(f"{host} names no realm that gives tokens") from None
        if self._registry.scheme == "https" and realm.scheme != "https":
            raise Unavailable(f"{host} sends us to {realm.scheme}://{realm.host} for a token")
        asked = {name: challenge[name] for name in ("service", "scope") if name in challenge}
        is_own = realm.origin() == self._registry.origin()
        try:
            content, _ = await self._web.small(
                Asked(url=realm.update_query(asked), credentials=self._login if is_own else None),
                max_bytes=_MAX_TOKEN_BYTES,
            )
        except Refused as error:
            raise self._not_given(error, realm) from None
        try:
            answer = msgspec.json.decode(content, type=_Answer)
        except (msgspec.MsgspecError, RecursionError):
            raise Unavailable(f"{realm.host} gives no token in its answer") from None
        token = answer.token or answer.access_token
        if not _TOKEN.fullmatch(token):
            raise Unavailable(f"{realm.host} gives no token in its answer")
        return token

    def _not_given(self, error: Refused, realm: URL) -> EngineError:
        if error.status not in (400, 401, 403):
            return Unavailable(f"no token for {self._registry.host}: {error}")
        foreign = "" if realm.origin() == self._registry.origin() else (
            f"; our login for {self._registry.host} is not shown to {realm.host}"
        )  # fmt: skip
        return RequestRefused(
            f"{realm.host} gives us no token for {self._registry.host} ({error.status}): log in, "
            f"see docs/models.md#credentials{foreign}",
            param="model",
        )
