"""What a policy says of one issuer of tokens: `[oidc.issuers.NAME]` of gateway.toml."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

# Only signatures that whoever verifies cannot make: no `none`, no HMAC.
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"
]
Text = Annotated[str, Meta(min_length=1)]


class IssuerPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose tokens are accepted, and what their claims mean here."""

    issuer: Text  # exactly what stands in the tokens' `iss`
    audiences: Annotated[Sequence[Text], Meta(min_length=1)]  # one of them must be in `aud`
    algorithms: Annotated[Sequence[Algorithm], Meta(min_length=1)] = ("RS256", "ES256")
    jwks_url: Text | None = None  # None: the issuer's discovery document says
    authorized_parties: Annotated[Sequence[Text], Meta(min_length=1)] | None = None
    team_claim: Text = "team"
    teams: Mapping[str, Text] = {}  # value of the claim -> team; empty: the value is the team
    role_claim: Text | None = None
    admin_values: Sequence[Text] = ()
    name_claim: Text = "sub"
    leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 30.0  # how far clocks may differ
    max_lifetime_seconds: Annotated[float, Meta(ge=60, le=31_536_000)] = 86_400.0
    refresh_seconds: Annotated[float, Meta(ge=10, le=86_400)] = 300.0  # between fetches of keys

    def __post_init__(self) -> None:
        for field, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url is not None and (problem := url_problem(url)):
                raise ValueError(f"{field} {url!r} {problem}")
        if urlsplit(self.issuer).query:
            raise ValueError(f"issuer {self.issuer!r} has a query, and an issuer has none")
        if (self.role_claim is None) == bool(self.admin_values):
            raise ValueError(
                "role_claim and admin_values go together: which claim, and which of its values "
                "make an admin"
            )


def url_problem(url: str) -> str:
    """Why nothing may be fetched from `url`, or nothing."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return "is not a plain URL: it has a host, no user and no fragment"
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        return "is not https, so anybody on the way could change it (http only on this machine)"
    return ""


def is_loopback(host: str) -> bool:
    """Is this host the machine itself, by name or address?"""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
