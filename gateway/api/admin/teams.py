"""Teams as the policy sees them, and what they do now.

`GET /admin/teams`, `GET /admin/teams/{name}`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.admin.admission import admitted, json_reply, read_query
from gateway.api.get_endpoint import get_endpoint
from gateway.call import Call
from gateway.errors import NotFound
from gateway.policy.problems import way_out

if TYPE_CHECKING:
    from gateway.gateway import Gateway


class _NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Team(Struct, kw_only=True):
    name: str
    policy: Any  # its table of teams.toml, with defaults
    limits: Any  # the table of limits.toml that it names
    active_keys: int
    calls: int  # in flight


class _Teams(Struct):
    teams: Sequence[_Team]


@get_endpoint("/admin/teams", name="admin.teams")
async def list_teams(request: Request[Any, Any, Any]) -> ASGIApp:
    """Every team of the policy."""
    gateway, call = admitted(request)
    read_query(request, _NoQuery)
    keys, calls = await _active_keys(gateway), _calls(gateway)
    return json_reply(_Teams([_team(call, name, keys, calls) for name in call.policy.teams]))


@get_endpoint("/admin/teams/{name:str}", opt={"endpoint": "admin.teams"})
async def show_team(request: Request[Any, Any, Any]) -> ASGIApp:
    """One team of the policy."""
    gateway, call = admitted(request)
    name = cast(str, request.path_params["name"])
    read_query(request, _NoQuery)
    if name not in call.policy.teams:
        raise NotFound(f"there is no team {name[:60]!r}{way_out(name, call.policy.teams)}")
    return json_reply(_team(call, name, await _active_keys(gateway), _calls(gateway)))


def _team(call: Call, name: str, keys: Mapping[str, int], calls: Mapping[str, int]) -> _Team:
    team = call.policy.teams[name]
    limits = call.policy.limits.get(team.limits or "")
    return _Team(
        name=name,
        policy=msgspec.to_builtins(team, enc_hook=str),
        limits=msgspec.to_builtins(limits, enc_hook=str),
        active_keys=keys.get(name, 0),
        calls=calls.get(name, 0),
    )


async def _active_keys(gateway: "Gateway") -> Mapping[str, int]:
    now = datetime.now(UTC)
    return Counter(key.team for key in await gateway.keys.list() if key.is_usable(now))


def _calls(gateway: "Gateway") -> Mapping[str, int]:
    return Counter(call.principal.team for call in gateway.calls.values())
