"""The credential that a request carries, in any of the three headers that clients use.

Every plugin that identifies callers reads it here: a rule that holds for one header only
is a way round it (CVE-2026-45339).
"""

from collections.abc import Mapping

from gateway.errors import Unauthenticated

CHALLENGE = {"www-authenticate": "Bearer"}


def presented_credential(headers: Mapping[str, str]) -> str | None:
    """The one credential of `Authorization`, `x-api-key` and `api-key`; None without any.

    The same one twice is one. Raises `Unauthenticated` for two different ones: which of
    them counts would be for each reader of the request to guess.
    """
    found: str | None = None
    for name in ("authorization", "x-api-key", "api-key"):
        if (value := headers.get(name)) is None:
            continue
        credential = value.strip()
        if name == "authorization":
            credential = _without_scheme(credential)
        if not credential:
            continue
        # A header that came twice has been joined with a comma (gateway/middleware.py).
        if "," in credential or (found is not None and credential != found):
            raise Unauthenticated(
                "the request carries two different credentials; send one", headers=CHALLENGE
            )
        found = credential
    return found


def _without_scheme(value: str) -> str:
    scheme, _, token = value.partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return value
