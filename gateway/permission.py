"""What a call may do: the team's lists in teams.toml, and then what its key leaves of them.

Everything is decided on the endpoint's name, which the matched handler has, and on
the model's name in models.toml. No path, no Host header and no alias is looked at.
"""

from collections.abc import Sequence
from functools import lru_cache

from gateway.call import Call
from gateway.endpoints import MAX_REMEMBERED, is_denied, matches, needs_admin
from gateway.networks import is_in

_LATEST = ":latest"


def may_use_endpoint(call: Call) -> bool:
    """Do the team's endpoints and the key's allow this call's endpoint?"""
    team = call.policy.teams.get(call.principal.team)
    if team is None or not matches(call.endpoint, team.endpoints):
        return False
    narrowed = call.principal.narrowing.endpoints
    return narrowed is None or matches(call.endpoint, narrowed)


def may_use_model(call: Call, name: str) -> bool:
    """Do the team's models and the key's allow the model of this name? No alias is."""
    team = call.policy.teams.get(call.principal.team)
    narrowed = call.principal.narrowing.models
    if team is None or not _allows(name, team.models):
        return False
    return narrowed is None or _allows(name, narrowed)


def _allows(name: str, patterns: Sequence[str]) -> bool:
    """Do they allow it, and deny it neither with the tag `latest` nor without: it is one model?"""
    decide = _allowed if len(name) <= MAX_REMEMBERED else _allowed.__wrapped__
    return decide(name, tuple(patterns))


@lru_cache(maxsize=4096)
def _allowed(name: str, patterns: tuple[str, ...]) -> bool:
    short = name.removesuffix(_LATEST)
    other = short if short != name else name + _LATEST
    return matches(name, patterns) and not is_denied(other, patterns)


def may_call_from_here(call: Call) -> bool:
    """Do the team's networks and the key's hold the address that the call comes from?"""
    team = call.policy.teams.get(call.principal.team)
    of_team = team.networks if team is not None else None
    of_key = call.principal.narrowing.networks
    if of_team is not None and not is_in(call.client.host, of_team):
        return False
    return of_key is None or is_in(call.client.host, of_key)


def has_needed_role(call: Call) -> bool:
    """Some endpoints are for callers with the role admin, whatever a team's lists say."""
    return not needs_admin(call.endpoint) or call.principal.is_admin
