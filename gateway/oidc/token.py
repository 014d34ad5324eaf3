"""A token's form and its claims, checked before and apart from its signature.

Whatever is wrong, the caller hears the same; the reason is for the log.
"""

import base64
import math
import re
from collections.abc import Mapping
from typing import Any, cast

from msgspec import Struct

from gateway.oidc.issuer_policy import IssuerPolicy
from gateway.oidc.strict_json import strict_object

MAX_TOKEN_CHARACTERS = 16 * 1024
MAX_NAME_CHARACTERS = 256

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_TYPES = {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}
# `crit` names extensions that must be understood, and none is; `b64` and `zip` change
# what is signed; `jwk` is a key that the token brings along (RFC 7515, RFC 7797).
_REFUSED_PARAMETERS = ("crit", "b64", "zip", "jwk")


class TokenRefused(Exception):
    """Why a token is not accepted, in one word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Token(Struct, frozen=True):
    """What a token says. Nothing of it is to be believed yet."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def algorithm(self) -> str:
        """The header's `alg`; empty if it has none."""
        algorithm = self.header.get("alg")
        return algorithm if isinstance(algorithm, str) else ""

    @property
    def kid(self) -> str | None:
        """The header's key id. Raises `TokenRefused` if it is no text."""
        kid = self.header.get("kid")
        if kid is None or (isinstance(kid, str) and len(kid) <= MAX_NAME_CHARACTERS):
            return kid
        raise TokenRefused("malformed")


def looks_like_token(credential: str) -> bool:
    """Is this meant as a token, a bad one too? Then nobody else is to judge it."""
    return credential.startswith("eyJ") or credential.count(".") == 2


def read_token(text: str) -> Token:
    """Take a token apart. Raises `TokenRefused`."""
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise TokenRefused("too_long")
    segments = text.split(".")
    if len(segments) != 3 or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise TokenRefused("malformed")
    try:
        header, claims = (strict_object(_decoded(segment)) for segment in segments[:2])
        _decoded(segments[2])
    except ValueError:
        raise TokenRefused("malformed") from None
    return Token(text, header, claims)


def check_header(token: Token, policy: IssuerPolicy) -> None:
    """Refuse what the policy does not list, and what would change the rules of the check."""
    if token.algorithm not in policy.algorithms:
        raise TokenRefused("algorithm")
    if any(name in token.header for name in _REFUSED_PARAMETERS):
        raise TokenRefused("header")
    kind = token.header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise TokenRefused("type")


def check_claims(token: Token, policy: IssuerPolicy, now: float) -> float:
    """Refuse what is not for us, not now, or not for so long; the second at which it ends.

    `now` is in seconds since 1970, as the claims are.
    """
    claims, leeway = token.claims, policy.leeway_seconds
    if claims.get("iss") != policy.issuer:
        raise TokenRefused("issuer")
    if not set(_texts(claims.get("aud"))) & set(policy.audiences):
        raise TokenRefused("audience")
    if policy.authorized_parties is not None:
        party = claims.get("azp", claims.get("client_id"))
        if party not in policy.authorized_parties:
            raise TokenRefused("authorized_party")
    ends_at = _moment(claims.get("exp"))
    if now >= ends_at + leeway:
        raise TokenRefused("expired")
    if ends_at > now + leeway + policy.max_lifetime_seconds:
        raise TokenRefused("lifetime")
    for name in ("nbf", "iat"):
        if name in claims and _moment(claims[name]) > now + leeway:
            raise TokenRefused("not_yet_valid")
    return ends_at + leeway


def _texts(value: Any) -> list[str]:
    """`aud` is one text or a list of texts (RFC 7519 section 4.1.3); anything else is nobody."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return []
    items = cast(list[Any], value)
    return items if all(isinstance(item, str) for item in items) else []


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRefused("malformed")
    try:
        moment = float(value)
    except OverflowError:
        raise TokenRefused("malformed") from None
    if not math.isfinite(moment):
        raise TokenRefused("malformed")
    return moment


def _decoded(segment: str) -> bytes:
    if len(segment) % 4 == 1:
        raise ValueError("no base64")
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
