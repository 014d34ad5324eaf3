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
    value = headers.get("authorization", "").strip()
    scheme, _, token = value.partition(" ")
    found = token.strip() if scheme.lower() == "bearer" else value
    are_different = False
    for name in ("x-api-key", "api-key"):
        if name in headers and (credential := headers[name].strip()):
            are_different = are_different or (found != "" and credential != found)
            found = credential
    # A header that came twice has been joined with a comma (gateway/middleware.py).
    if are_different or "," in found:
        raise Unauthenticated(
            "the request carries two different credentials; send one", headers=CHALLENGE
        )
    return found or None
