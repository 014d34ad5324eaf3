"""Keeps what each call used in the ledger: who, which model, how many tokens. Never content."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway import NOBODY, Call, hookimpl
from gateway.ledger import UsageRecord
from gateway.limits import cost_in_micro_units

if TYPE_CHECKING:
    from gateway.gateway import Gateway

# Nobody is billed for these; what is done with the admin API is in the audit log.
NOT_COUNTED = frozenset(("admin", "health", "-"))


class Usage:
    """Hands a record to `gateway.usage` when a call has ended, however it ended.

    A call whose caller was never known leaves none: whoever knocks without a key must
    not be able to fill the ledger.
    """

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway

    @hookimpl
    @asynccontextmanager
    async def observe(self, call: Call) -> AsyncGenerator[None, None]:
        """Around the whole call."""
        try:
            yield
        finally:
            if call.principal is not NOBODY and call.dialect not in NOT_COUNTED:
                self._gateway.usage.put(record_of(call))


def record_of(call: Call) -> UsageRecord:
    """What the ledger keeps of a call that has ended."""
    used, first = call.usage, call.first_output_at
    return UsageRecord(
        call_id=call.id,
        at=datetime.fromtimestamp(call.began_at, UTC),
        team=call.principal.team,
        key_id=call.principal.key_id,
        principal=call.principal.name,
        endpoint=call.endpoint,
        model=call.model.name if call.model is not None else None,
        engine=call.target.engine if call.target is not None else None,
        prompt_tokens=used.prompt_tokens,
        cached_tokens=used.cached_tokens,
        completion_tokens=used.completion_tokens,
        reasoning_tokens=used.reasoning_tokens,
        cost_micros=cost_of(call),
        first_output_seconds=None if first is None else round(first - call.started_at, 6),
        seconds=round(call.seconds, 6),
        streamed=call.streams,
        status=call.status,
        outcome=call.outcome,
        policy=call.policy.digest[:12],
    )


def cost_of(call: Call) -> int | None:
    """Millionths of the price's unit, rounded up; None where the policy has no price."""
    price = call.policy.price_of(call.model.name) if call.model is not None else None
    return None if price is None else cost_in_micro_units(price, call.usage)
