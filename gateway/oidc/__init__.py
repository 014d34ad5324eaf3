"""Says whose an OpenID Connect token is: issuers, their keys, and what a token must hold.

issuer_policy.py   `[oidc.issuers.NAME]` of gateway.toml
tokens.py          from a token's text to its claims; where to start reading
token.py           a token's form and its claims, before anything is believed
issuer.py          the keys of one issuer: fetched, refreshed, kept while it is away
key_set.py         which published keys may verify what
fetching.py        reads JSON from an issuer and from nowhere else
claims.py          from claims to team, role and name
"""

from gateway.oidc.claims import TeamUnknown, principal_of
from gateway.oidc.issuer_policy import IssuerPolicy
from gateway.oidc.token import TokenRefused, looks_like_token
from gateway.oidc.tokens import Tokens

__all__ = [
    "IssuerPolicy",
    "TeamUnknown",
    "TokenRefused",
    "Tokens",
    "looks_like_token",
    "principal_of",
]
