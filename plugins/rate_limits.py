"""Admits a call only as far as the limits of its team, key and model have room.

What a call may use is reserved in one decision over all limits and, when it ends,
replaced by what it used. docs/limits.md says what counts when; the arithmetic is
in `gateway.store`, the rules in `gateway.limits`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
from msgspec import Meta, Struct

from engines.protocol import Usage
from gateway import Call, LimitsUnavailable, Refusal, hookimpl
from gateway.limits import (
    Estimate,
    Estimates,
    LocalLimits,
    RuleBook,
    Rules,
    WaitingLines,
    capped_estimate,
    count_prompt,
    demands_of,
    limit_headers,
    longest_answer,
    never_fits,
    output_left,
    refusal_of,
    used_of,
    why_refused,
)
from gateway.policy import PricePolicy
from gateway.store import Decision, Demand, Store, StoreUnavailable

if TYPE_CHECKING:
    from gateway.gateway import Gateway

log = structlog.get_logger()

OnStoreFailure = Literal["local", "open", "closed"]
LEAST_OUTPUT = 16  # an answer is not cut shorter than this: rather refused


class RateLimitsTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[rate_limits]` table of gateway.toml."""

    on_store_failure: OnStoreFailure = "local"
    budgets_on_store_failure: OnStoreFailure = "closed"
    replicas: Annotated[int, Meta(ge=1, le=10_000)] = 1  # gateways on one store
    default_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 1024
    max_waiting: Annotated[int, Meta(ge=0, le=100_000)] = 100


@dataclass(slots=True)
class Admission:
    """What a call asks of a store, and what is to be settled there when it ends."""

    store: Store
    rules: Rules
    demands: Sequence[Demand]
    estimate: Estimate
    price: PricePolicy | None
    longest: int = 0  # what an answer may be cut to is less than this
    waits_since: float | None = None  # the event loop's time
    is_degraded: bool = False  # the store did not answer
    local: "Admission | None" = None  # what is counted in this process instead


def admission_to(
    store: Store, rules: Rules, estimate: Estimate, price: PricePolicy | None
) -> Admission:
    """What a call of this size asks, if these limit it."""
    demands = demands_of(rules, estimate, price)
    return Admission(store, rules, demands, capped_estimate(rules, demands, estimate), price)


class RateLimits:
    """Reads limits.toml, the teams' `limits` and prices.toml; counts in the gateway's store."""

    table = RateLimitsTable

    def __init__(self, gateway: "Gateway") -> None:
        self._gateway = gateway
        self._book = RuleBook(gateway.policy)
        table = gateway.policy.table("rate_limits", RateLimitsTable)
        self._estimates = Estimates(default_output_tokens=table.default_output_tokens)
        self._local = LocalLimits(replicas=table.replicas)
        self._lines = WaitingLines()

    @hookimpl
    @asynccontextmanager
    async def admit(self, call: Call) -> AsyncGenerator[None, None]:
        """Reserve what the call may use; in the end, settle for what it used."""
        rules = self._rules_of(call)
        if not rules:
            yield
            return
        admission = await self._planned(call, rules)
        await self._enter(call, admission)
        try:
            yield
        finally:
            self._settle(call, admission)

    def _rules_of(self, call: Call) -> Rules:
        if self._book.policy is not call.policy:
            self._book = RuleBook(call.policy)
        return self._book.rules_of(call)

    async def _planned(self, call: Call, rules: Rules) -> Admission:
        """What the call will want."""
        prompt = await count_prompt(call, self._gateway.engines) if rules.needs_prompt else 0
        price = None
        if rules.needs_price and call.model is not None:
            price = call.policy.price_of(call.model.name)
        estimate = self._estimates.of_call(call, prompt)
        admission = admission_to(self._gateway.store, rules, estimate, price)
        if rules.clamping:
            gateway = self._gateway
            find = gateway.model_infos.find
            admission.longest = await longest_answer(call, gateway.engines, find, estimate)
        return admission

    async def _enter(self, call: Call, admission: Admission) -> None:
        """Take the room, or raise why there is none."""
        try:
            decision = await self._decided(call, admission)
        except StoreUnavailable as error:
            try:
                await self._enter_degraded(call, admission)
            except BaseException:
                if error.asked:  # it may act later, and the call is not let in
                    _take_back(call, admission)
                raise
            return
        self._let_in(call, admission, decision)

    async def _decided(self, call: Call, admission: Admission) -> Decision:
        """The decision that lets the call in, now or after a wait."""
        rules = admission.rules
        for rule in rules.waiting:
            if self._lines.is_waited_for(rule.bucket.key):
                # Others came first; nobody gets past them.
                await self._check_wait(call, admission)
                return await self._waited(call, admission, rule.bucket.key, rule.wait_seconds)
        decision = await self._reserve(call, admission)
        if decision.granted:
            return decision
        if not _pause(rules, decision):
            raise _refused(call, admission, decision)
        refusing = [rules[place] for place in why_refused(rules, decision)]
        seconds = min(rule.wait_seconds for rule in refusing)
        return await self._waited(call, admission, refusing[0].bucket.key, seconds)

    async def _check_wait(self, call: Call, admission: Admission) -> None:
        """Refuse whom it would not help to come to the head of a line, before it stands there."""
        least = _least(admission)
        wanted = [
            Demand(demand.bucket, demand.fixed + demand.per_output * least)
            for demand in admission.demands
        ]
        fills = await admission.store.peek(wanted)
        decision = Decision(granted=False, output=least, fills=fills)
        if why_refused(admission.rules, decision) and not _pause(admission.rules, decision):
            raise _refused(call, admission, decision)

    async def _waited(self, call: Call, admission: Admission, key: str, seconds: float) -> Decision:
        """The decision after standing in line; who waited in vain still gets one try."""
        loop = asyncio.get_running_loop()
        since = admission.waits_since
        if since is None:
            since = admission.waits_since = loop.time()
        table = call.policy.table("rate_limits", RateLimitsTable)
        # No time-out around a reservation: cut off in the middle it would count as ended.
        with contextlib.suppress(TimeoutError):
            async with self._lines.turn(key, until=since + seconds, max_waiting=table.max_waiting):
                while True:
                    decision = await self._reserve(call, admission)
                    if decision.granted:
                        return decision
                    pause = _pause(admission.rules, decision, waited=loop.time() - since)
                    if not pause:
                        raise _refused(call, admission, decision)
                    await asyncio.sleep(pause)
        decision = await self._reserve(call, admission)
        if not decision.granted:
            raise _refused(call, admission, decision)
        return decision

    async def _reserve(self, call: Call, admission: Admission) -> Decision:
        try:
            return await admission.store.reserve(
                call.id,
                admission.demands,
                output=admission.estimate.output_tokens,
                least_output=_least(admission),
            )
        except asyncio.CancelledError:
            # The client hung up while the store was asked; it may have said yes.
            _take_back(call, admission)
            raise

    def _let_in(self, call: Call, admission: Admission, decision: Decision) -> None:
        """Note the decision on the call: headers, a shorter answer, what shadows would refuse."""
        call.response_headers.update(limit_headers(admission.rules, decision.fills))
        if admission.rules.clamping and (cap := _cap(admission, decision)) is not None:
            call.replace_requests(max_tokens=cap)
            call.response_headers["x-penstock-max-tokens"] = str(cap)
        for place in admission.rules.shadows:
            rule, fill = admission.rules[place], decision.fills[place]
            if not fill.fits:
                log.info(
                    "limit_shadowed",
                    call=call.id,
                    limits=rule.table,
                    limit=rule.field,
                    subject=rule.whose,
                    used=fill.used,
                    capacity=rule.bucket.capacity,
                )

    async def _enter_degraded(self, call: Call, admission: Admission) -> None:
        """Do what the policy says when the store does not answer."""
        call.response_headers["x-penstock-limits"] = "degraded"
        if (hopeless := _hopeless(admission)) is not None:
            raise hopeless
        table = call.policy.table("rate_limits", RateLimitsTable)
        counted: list[int] = []
        for index, rule in enumerate(admission.rules):
            choice = table.budgets_on_store_failure if rule.is_budget else table.on_store_failure
            if choice == "closed" and rule.bucket.enforced:
                raise LimitsUnavailable
            if choice == "local":
                counted.append(index)
        admission.is_degraded = True
        if not counted:
            return
        rules = self._local.share_of(admission.rules, counted)
        local = admission_to(self._local.store, rules, admission.estimate, admission.price)
        local.longest, local.waits_since = admission.longest, admission.waits_since
        admission.local = local
        self._let_in(call, local, await self._decided(call, local))

    def _settle(self, call: Call, admission: Admission) -> None:
        usage, requests = _usage_to_charge(call, admission.estimate)
        used = used_of(admission.rules, usage, admission.price, requests=requests)
        if (local := admission.local) is not None:
            shares = used_of(local.rules, usage, local.price, requests=requests)
            local.store.settle(call.id, local.demands, shares)
        admission.store.settle(
            call.id, admission.demands, used, charge_unreserved=admission.is_degraded
        )
        # Of several answers in one, nobody knows how long each was.
        is_single = call.answers_per_request == 1
        if is_single and call.error is None and call.model is not None and call.requests:
            for tally in call.tallies:
                self._estimates.learn(call.model.name, tally.completion_tokens)


def _take_back(call: Call, admission: Admission) -> None:
    """Whatever the store may have given the call, it has used nothing of it."""
    admission.store.settle(call.id, admission.demands, [0] * len(admission.demands))


def _least(admission: Admission) -> int:
    """What the call can do with where limits clamp its output; else it is not cut at all."""
    output = admission.estimate.output_tokens
    return min(output, LEAST_OUTPUT) if admission.rules.clamping else output


def _cap(admission: Admission, decision: Decision) -> int | None:
    """What the answer is cut to; None if it is not."""
    if decision.output < admission.estimate.output_tokens:
        return decision.output
    if decision.output >= admission.longest:
        return None
    # Only a guess was reserved: the answer may get longer, as far as there is room.
    left = output_left(admission.rules, admission.demands, decision)
    return left if left is not None and left < admission.longest else None


def _hopeless(admission: Admission) -> Refusal | None:
    """Why the call could not be let in if nobody else called; None if it could."""
    return never_fits(
        admission.rules, admission.demands, admission.estimate, least_output=_least(admission)
    )


def _refused(call: Call, admission: Admission, decision: Decision) -> Refusal:
    """Why, with the headers that say how full the limits are."""
    call.response_headers.update(limit_headers(admission.rules, decision.fills))
    hopeless = _hopeless(admission)
    return hopeless or refusal_of(admission.rules, admission.demands, decision)


def _pause(rules: Rules, decision: Decision, *, waited: float = 0.0) -> float:
    """How long until all of it may fit; 0 if that is longer than some limit that refuses allows."""
    refusing = why_refused(rules, decision)
    waits = [decision.fills[place].retry_ms for place in refusing]
    if -1 in waits:
        return 0.0
    patience = min(rules[place].wait_seconds for place in refusing) - waited
    pause = max(waits) / 1000
    return pause if pause <= patience else 0.0


def _usage_to_charge(call: Call, estimate: Estimate) -> tuple[Usage, int]:
    """The tokens and requests that a call is charged, by how it ended."""
    usage = call.usage
    if call.first_output_at is not None:
        if usage.prompt_tokens == 0:
            return Usage(
                prompt_tokens=estimate.prompt_tokens, completion_tokens=usage.completion_tokens
            ), 1
        return usage, 1
    if call.error is not None and call.error.code == "client_closed":
        # The prompt may have been computed; whoever hangs up must not get that for nothing.
        return Usage(prompt_tokens=estimate.prompt_tokens), 1
    is_callers_fault = call.error is not None and call.error.status < 500
    return Usage(), int(is_callers_fault)
