"""From the claims of a verified token to who is calling here."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from gateway.call import Principal
from gateway.oidc.issuer_policy import IssuerPolicy
from gateway.oidc.token import MAX_NAME_CHARACTERS, TokenRefused


class TeamUnknown(Exception):
    """The token is good and names no team, or more than one without saying which."""


def principal_of(
    name: str, policy: IssuerPolicy, claims: Mapping[str, Any], teams: Collection[str]
) -> Principal:
    """Who the token's holder is: `NAME:subject` of a team.

    Raises `TeamUnknown`, and `TokenRefused` without a subject.
    """
    subject = claim_at(claims, policy.name_claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_NAME_CHARACTERS:
        raise TokenRefused("subject")
    if not subject.isprintable():
        raise TokenRefused("subject")
    is_admin = policy.role_claim is not None and bool(
        set(_values(claims, policy.role_claim)) & set(policy.admin_values)
    )
    return Principal(
        # Two issuers may call two people by one name.
        name=f"{name}:{subject}",
        team=_team_of(policy, claims, teams),
        role="admin" if is_admin else "member",
    )


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that name or, if it starts with `/`, at that JSON pointer (RFC 6901)."""
    if not path.startswith("/"):
        return claims.get(path)
    found: Any = claims
    for part in path[1:].split("/"):
        if not isinstance(found, dict):
            return None
        key = part.replace("~1", "/").replace("~0", "~")
        found = cast(dict[str, Any], found).get(key)
    return found


def _team_of(policy: IssuerPolicy, claims: Mapping[str, Any], teams: Collection[str]) -> str:
    """The first line of the policy's `teams` that the claim has; else the team it names itself.

    Names are compared as they are: two that only look alike are two.
    """
    values = _values(claims, policy.team_claim)
    if policy.teams:
        found = [team for value, team in policy.teams.items() if value in values][:1]
    else:
        found = sorted({value for value in values if value in teams})
    if len(found) != 1:
        raise TeamUnknown
    return found[0]


def _values(claims: Mapping[str, Any], path: str) -> Sequence[str]:
    """A claim that is one text or a list of texts; what is no text in it does not count."""
    value = claim_at(claims, path)
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return []
    return [item for item in cast(list[Any], value) if isinstance(item, str)]
