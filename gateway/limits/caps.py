"""How long an answer may get whose client named no length, where limits clamp it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from engines.protocol import Engine, ModelInfo
from gateway.call import Call
from gateway.limits.estimates import COUNT_SECONDS, Estimate, estimated_tokens
from gateway.limits.rules import Rules
from gateway.store import Decision, Demand
from gateway.store.arithmetic import room_for_output
from gateway.within import within

# Upstreams refuse a cap beyond what their models can answer. All but small models take so much.
TAKEN_BY_MOST = 4096

Find = Callable[[Engine, str], Awaitable[ModelInfo | None]]


async def longest_answer(
    call: Call, engines: Mapping[str, Engine], find: Find, estimate: Estimate
) -> int:
    """The length from which on a cap would change nothing, or be refused.

    What the policy allows; else what the smallest context of the targets leaves beside
    the prompt. Where a context is not known, what most take as a cap.
    """
    if not call.requests:
        return 0
    allowed = call.requests[0].max_tokens
    if allowed is not None:
        return allowed
    try:
        context = await within(COUNT_SECONDS, _smallest_context(call, engines, find))
    except TimeoutError:
        context = 0
    if not context:
        return max(TAKEN_BY_MOST, estimate.output_tokens)
    prompts = call.requests[:: call.choices_per_prompt]
    return context - (estimate.prompt_tokens or sum(map(estimated_tokens, prompts)))


async def _smallest_context(call: Call, engines: Mapping[str, Engine], find: Find) -> int:
    """In tokens; 0 if it is not known of every target."""
    contexts: list[int] = []
    for target in call.route.targets if call.route else ():
        engine = engines.get(target.engine)
        info = await find(engine, target.model) if engine is not None else None
        contexts.append(info.context_tokens if info is not None else 0)
    return min(contexts, default=0)


def output_left(rules: Rules, demands: Sequence[Demand], decision: Decision) -> int | None:
    """How long an answer may get with all that is left, in tokens; None if nothing says so."""
    rooms = [
        room_for_output(
            demands[place].bucket, decision.fills[place].remaining, 0, demands[place].per_output
        )
        for place in rules.clamping
        if demands[place].per_output
    ]
    return decision.output + min(rooms) if rooms else None
