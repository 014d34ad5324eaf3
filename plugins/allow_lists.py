"""Refuses calls that a caller may not make: by endpoint, model and network."""

import structlog

from gateway import Call, Forbidden, ModelUnknown, hookimpl
from gateway.permission import may_call_from_here, may_use_endpoint, may_use_model

log = structlog.get_logger()


class AllowLists:
    """Reads each team's `endpoints`, `models` and `networks`, and what a key leaves of them."""

    @hookimpl
    async def authorize(self, call: Call) -> None:
        """Refuse unless team and key both allow the address, the endpoint and the model."""
        principal = call.principal
        if principal.team not in call.policy.teams:
            # A key outlives the policy that its team was in. That is for the log:
            # the caller can do nothing about it.
            log.warning("team_unknown", team=principal.team, key_id=principal.key_id)
            raise Forbidden("your team may not use this gateway; ask whoever runs it")
        limits = principal.narrowing.limits
        if limits is not None and limits not in call.policy.limits:
            # Without its table a narrower key would be a wider one.
            log.warning("limits_unknown", limits=limits, key_id=principal.key_id)
            raise Forbidden("your key may not be used at the moment; ask whoever runs this gateway")
        if not may_call_from_here(call):
            log.warning("network_refused", client=call.client.host, key_id=principal.key_id)
            raise Forbidden("calls from your address are not allowed with these credentials")
        if not may_use_endpoint(call):
            raise Forbidden(f"{_who(call)} may not use {call.endpoint}")
        # A model that the caller may not use does not exist for it: 404, not 403.
        if call.model is not None and not may_use_model(call, call.model.name):
            raise ModelUnknown(_asked_for(call))


def _who(call: Call) -> str:
    of_key = " with this key" if call.principal.narrowing.endpoints is not None else ""
    return f"team {call.principal.team!r}{of_key}"


def _asked_for(call: Call) -> str:
    """The name in the request: which model an alias stands for is not for everyone."""
    if call.requests:
        return call.requests[0].model
    if call.embed_request is not None:
        return call.embed_request.model
    if call.rerank_request is not None:
        return call.rerank_request.model
    return call.model.name if call.model is not None else "-"
