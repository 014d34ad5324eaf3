"""Fills in what a request leaves open, caps its output, and says whose it is."""

from typing import ClassVar

import msgspec
from msgspec import Struct

from engines.protocol import GenerateRequest, Sampling
from gateway import Call, hookimpl
from gateway.policy import SamplingDefaults, TeamPolicy

_NOTHING = SamplingDefaults()


class DefaultsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[defaults]` table of gateway.toml."""

    share_prompt_cache: bool = False  # true: teams can time each other's prompts


class Defaults:
    """Reads a model's `defaults`, its team's share and the limits' `max_output_tokens`."""

    table: ClassVar[type[Struct] | None] = DefaultsTable

    @hookimpl
    async def prepare(self, call: Call) -> None:
        """Complete every request of the call; what a request says itself stays."""
        name = call.principal.team
        team = call.policy.teams.get(name) or TeamPolicy(name=name)
        share = {"owner": name, "weight": team.weight, "priority": team.priority}
        if call.embed_request is not None:
            call.embed_request = msgspec.structs.replace(call.embed_request, **share)
        if call.rerank_request is not None:
            call.rerank_request = msgspec.structs.replace(call.rerank_request, **share)
        cap = _cap(call, team)
        given = call.model.defaults if call.model is not None else _NOTHING
        shares_cache = call.policy.table("defaults", DefaultsTable).share_prompt_cache
        call.requests = [
            msgspec.structs.replace(
                request,
                sampling=_filled(request.sampling, given),
                max_tokens=_capped(request, given, cap),
                cache_salt="" if shares_cache else name,
                **share,
            )
            for request in call.requests
        ]


def _cap(call: Call, team: TeamPolicy) -> int | None:
    """The smaller of what the team's limits and the key's allow one answer."""
    smallest = None
    for name in (team.limits, call.principal.narrowing.limits):
        table = call.policy.limits.get(name) if name is not None else None
        cap = table.max_output_tokens if table is not None else None
        if cap is not None and (smallest is None or cap < smallest):
            smallest = cap
    return smallest


def _filled(sampling: Sampling, given: SamplingDefaults) -> Sampling:
    """`sampling` with its open fields taken from `given`."""
    if given == _NOTHING:
        return sampling
    open_fields = {
        name: getattr(given, name)
        for name in SamplingDefaults.__struct_fields__
        if name != "max_tokens" and getattr(sampling, name) is None
    }
    return msgspec.structs.replace(sampling, **open_fields)


def _capped(request: GenerateRequest, given: SamplingDefaults, cap: int | None) -> int | None:
    """The request's own number, else the model's, and never over the team's."""
    wanted = request.max_tokens if request.max_tokens is not None else given.max_tokens
    if cap is None:
        return wanted
    return cap if wanted is None else min(wanted, cap)
