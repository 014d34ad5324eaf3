"""Refuses calls that a team may not make: endpoints and models, by glob."""

import structlog

from gateway import Call, Forbidden, ModelUnknown, hookimpl
from gateway.endpoints import matches

log = structlog.get_logger()


class AllowLists:
    """Reads each team's `endpoints` and `models` from teams.toml."""

    @hookimpl
    async def authorize(self, call: Call) -> None:
        """Refuse unless the caller's team may use the endpoint and the model."""
        team = call.policy.teams.get(call.principal.team)
        if team is None:
            # A key outlives the policy that its team was in. That is for the log:
            # the caller can do nothing about it.
            log.warning("team_unknown", team=call.principal.team, key_id=call.principal.key_id)
            raise Forbidden("your team may not use this gateway; ask whoever runs it")
        if not matches(call.endpoint, team.endpoints):
            raise Forbidden(f"team {team.name!r} may not use {call.endpoint}")
        # A model the team may not see does not exist for it: 404, not 403.
        if call.model is not None and not matches(call.model.name, team.models):
            raise ModelUnknown(_asked_for(call))


def _asked_for(call: Call) -> str:
    """The name in the request: which model an alias stands for is not for everyone."""
    if call.requests:
        return call.requests[0].model
    if call.embed_request is not None:
        return call.embed_request.model
    return call.model.name if call.model is not None else "-"
