"""What somebody who makes a key may put into it: never more than they may do themselves.

A right is allowed by every list on the way to it (the team's, then the key's), so what a
new key may do is within what its maker may do if each of the maker's lists covers one of
the new key's. Whether a list covers another is decided by their patterns alone; it may
say no where somebody who thinks about it would say yes, and never the other way round.
"""

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Any

from gateway.call import Principal
from gateway.endpoints import matches
from gateway.errors import BadRequest, Forbidden
from gateway.narrowing import Narrowing
from gateway.networks import network_problem
from gateway.policy import Policy, TeamPolicy

Lists = Sequence[Sequence[str] | None]  # None: a list that takes nothing away


def check_minting(policy: Policy, maker: Principal, *, team: str, narrowing: Narrowing) -> None:
    """Refuse unless `maker` may make (or change, enable, rotate) such a key of either role.

    Raises `BadRequest` for a team or limits that the policy does not have, and
    `Forbidden` for a key that could do what its maker may not.
    """
    if not maker.is_admin:
        raise Forbidden("keys are made by callers with the role admin")
    if team not in policy.teams:
        raise BadRequest(f"the policy has no team {team[:40]!r}", param="team")
    if narrowing.limits is not None and narrowing.limits not in policy.limits:
        raise BadRequest(f"the policy has no limits {narrowing.limits[:40]!r}", param="limits")
    own = policy.teams.get(maker.team)
    if own is None:
        raise Forbidden("your team may not use this gateway; ask whoever runs it")
    for field in ("models", "endpoints", "networks"):
        wider = _lists(field, own, maker.narrowing)
        if not _is_within(_lists(field, policy.teams[team], narrowing), wider, field):
            raise Forbidden(f"the key's {field} would be more than yours; narrow them")
    if maker.narrowing.limits not in (None, narrowing.limits):
        raise Forbidden(f"the key's limits must be yours, {maker.narrowing.limits!r}")


def covers(wide: Sequence[str], narrow: Sequence[str], *, networks: bool = False) -> bool:
    """Does `wide` surely allow everything that `narrow` allows?"""
    fits = _fits_network if networks else _fits_glob
    allowed = _allowing(narrow)
    every_one = all(any(fits(each, over) for over in _allowing(wide)) for each in allowed)
    still_denied = all(
        any(fits(denied, under) for under in _denying(narrow)) for denied in _denying(wide)
    )
    return every_one and (still_denied or not allowed)


def _is_within(inner: Lists, outer: Lists, field: str) -> bool:
    is_networks = field == "networks"
    return all(
        any(covers(wide, each, networks=is_networks) for each in inner if each is not None)
        for wide in outer
        if wide is not None
    )


def _lists(field: str, team: TeamPolicy, narrowing: Narrowing) -> Lists:
    return (getattr(team, field), getattr(narrowing, field))


def _allowing(patterns: Iterable[str]) -> list[str]:
    return [pattern for pattern in patterns if not pattern.startswith("!")]


def _denying(patterns: Iterable[str]) -> list[str]:
    return [pattern[1:] for pattern in patterns if pattern.startswith("!")]


def _fits_glob(inner: str, outer: str) -> bool:
    # A star of `inner` can only fall on a star of `outer`, which then takes whatever
    # that star may stand for: so one glob lies within another if it fits it as a name.
    return matches(inner, [outer])


def _fits_network(inner: str, outer: str) -> bool:
    if outer == "*" or inner == outer:
        return True
    if any(each in ("*", "unix") or network_problem(each) for each in (inner, outer)):
        return False
    one: Any = ip_network(inner)
    other: Any = ip_network(outer)
    return one.version == other.version and one.subnet_of(other)
