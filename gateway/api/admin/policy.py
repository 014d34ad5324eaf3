"""The policy in use, what a change on disk would do, what would happen to a call, and reloading.

`GET /admin/policy`, `POST /admin/policy/check`, `GET /admin/policy/explain`,
`POST /admin/policy/reload`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Request, post
from litestar.types import ASGIApp
from msgspec import Struct

from gateway.api.admin.admission import admitted, entry_of, json_reply, read_query
from gateway.api.admin.targets_now import targets_now
from gateway.api.get_endpoint import get_endpoint
from gateway.errors import BadRequest, PolicyRefused
from gateway.keys import row_of
from gateway.ledger import DoneBy
from gateway.limits import Rules, look, rules_to_look_at
from gateway.policy.explain import Line, explain
from gateway.reload import LastReload
from gateway.store import Store, StoreUnavailable

if TYPE_CHECKING:
    from gateway.call import Call


class _NoQuery(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpoint: str
    team: str | None = None  # the key's own, where one is named
    key: str | None = None  # a public id
    model: str | None = None


class _Policy(Struct, kw_only=True):
    directory: str
    digest: str
    last_reload: LastReload | None
    policy: Any  # all of it; secrets as the places where they are kept


class _Checked(Struct, kw_only=True):
    holds: bool
    problems: Sequence[str]
    digest: str | None  # of what is on disk
    changes: Sequence[str]  # what a reload would change


class _Explained(Struct, kw_only=True):
    refused: bool
    lines: Sequence[Line]


@get_endpoint("/admin/policy", name="admin.policy")
async def show_policy(request: Request[Any, Any, Any]) -> ASGIApp:
    """The policy that calls get now."""
    gateway, _ = admitted(request)
    read_query(request, _NoQuery)
    policy = gateway.policy
    shown: Any = msgspec.to_builtins(policy, enc_hook=str)
    return json_reply(
        _Policy(
            directory=str(policy.directory),
            digest=policy.digest,
            last_reload=gateway.reloader.last,
            policy={n: v for n, v in shown.items() if n not in ("directory", "digest")},
        )
    )


@post("/admin/policy/check", opt={"endpoint": "admin.policy"}, status_code=200)
async def check_policy(request: Request[Any, Any, Any]) -> ASGIApp:
    """Read the directory again and say whether it holds and what it would change."""
    gateway, _ = admitted(request)
    read_query(request, _NoQuery)
    try:
        found = await gateway.reloader.check()
    except PolicyRefused as error:
        return json_reply(_Checked(holds=False, problems=error.problems, digest=None, changes=()))
    return json_reply(_Checked(holds=True, problems=(), digest=found.digest, changes=found.changes))


@get_endpoint("/admin/policy/explain", opt={"endpoint": "admin.policy"})
async def explain_policy(request: Request[Any, Any, Any]) -> ASGIApp:
    """What would happen to such a call, and which line decides it."""
    gateway, _ = admitted(request)
    asked = read_query(request, _Asked)
    key = None
    if asked.key is not None:
        found = await gateway.keys.get(asked.key)
        if found is None:
            raise BadRequest(f"there is no key {asked.key[:64]!r}; GET /admin/keys", param="key")
        key = row_of(found, datetime.now(UTC))
    team = asked.team or (key.team if key is not None else None)
    if team is None:
        raise BadRequest("say who would call: a team, or one of its keys", param="team")
    if key is not None and team != key.team:
        raise BadRequest(f"key {key.id} is of team {key.team!r}", param="team")
    policy, endpoint, model = gateway.policy, asked.endpoint, asked.model
    lines = list(explain(policy, team=team, endpoint=endpoint, model=model, key=key))
    refused = lines[-1].refused
    if not refused:
        found = policy.resolve(model) if model is not None else None
        if found is not None and "routing" in policy.plugins:
            lines += targets_now(gateway, found)
        rules = rules_to_look_at(policy, team=team, endpoint=endpoint, model=model, key=key)
        lines += await _fills_told(gateway.store, rules)
    return json_reply(_Explained(refused=refused, lines=lines))


@post("/admin/policy/reload", opt={"endpoint": "admin.policy"}, status_code=200)
async def reload_policy(request: Request[Any, Any, Any]) -> ASGIApp:
    """Serve the directory as it is now; 409 with every problem if it does not hold."""
    gateway, call = admitted(request)
    read_query(request, _NoQuery)
    return json_reply(await gateway.reloader.reload(_done_by(call)))


async def _fills_told(store: Store, rules: Rules) -> Sequence[Line]:
    try:
        return await look(store, rules)
    except StoreUnavailable:
        return [Line("how full they are is not known: the store does not answer", "PENSTOCK_STORE")]


def _done_by(call: "Call") -> DoneBy:
    entry = entry_of(call, "policy.reload", "policy")
    fields = {name: getattr(entry, name) for name in DoneBy.__struct_fields__}
    return DoneBy(**fields)
