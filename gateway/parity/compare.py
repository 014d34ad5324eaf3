"""Two answers to one prompt, aspect by aspect."""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.parity.answer import Answer, CalledTool
from gateway.parity.aspects import AGREES, NOTHING, Aspect, Finding, differs
from gateway.parity.excerpt import beginning, ending, first_difference, visible
from gateway.parity.expectations import broken_expectations
from gateway.parity.json_validity import canonical, json_problem
from gateway.parity.prompt_difference import prompt_difference
from gateway.parity.prompt_set import Prompt
from gateway.parity.text_difference import text_difference


class Tolerance(Struct, frozen=True, kw_only=True):
    """What still counts as the same."""

    near_tie_nats: float = 0.1  # up to where a lead is called none
    near_ties_agree: bool = False  # texts that part at a near-tie count as agreeing
    logprob_nats: float = 0.1
    cosine: float = 0.99


def compare(
    prompt: Prompt, reference: Answer, other: Answer, tolerance: Tolerance
) -> Mapping[Aspect, Finding]:
    """What was found of every aspect."""
    found = dict.fromkeys(Aspect, NOTHING)
    found[Aspect.ANSWERED] = _answered(reference, other)
    found[Aspect.PROMPT] = _rendered(reference, other)
    found[Aspect.EXPECT] = _expected(prompt, reference, other)
    if reference.failure is not None or other.failure is not None:
        return found
    found[Aspect.PROMPT_TOKENS] = _numbers(reference.prompt_tokens, other.prompt_tokens)
    if reference.vectors or other.vectors:
        found[Aspect.EMBEDDINGS] = _vectors(reference.vectors, other.vectors, tolerance.cosine)
        return found
    found |= _said(prompt, reference, other, tolerance)
    found[Aspect.FINISH_REASON] = _words(reference.finish_reason, other.finish_reason)
    found[Aspect.LOGPROBS] = _logprobs(prompt, reference, other, tolerance.logprob_nats)
    return found


def _said(
    prompt: Prompt, reference: Answer, other: Answer, tolerance: Tolerance
) -> dict[Aspect, Finding]:
    same = (
        reference.text == other.text
        and reference.reasoning == other.reasoning
        and reference.tool_calls == other.tool_calls
    )
    return {
        Aspect.TEXT: _text(reference, other, tolerance),
        Aspect.REASONING: _reasoning(reference.reasoning, other.reasoning),
        Aspect.TOOL_CALLS: _tool_calls(prompt, reference.tool_calls, other.tool_calls),
        Aspect.JSON: _json(prompt, reference, other),
        # Other words have another length, which would be to tell one difference twice.
        Aspect.COMPLETION_TOKENS: (
            _numbers(reference.completion_tokens, other.completion_tokens) if same else NOTHING
        ),
    }


def _answered(reference: Answer, other: Answer) -> Finding:
    failures = reference.failure, other.failure
    if failures == (None, None):
        return AGREES
    texts = [
        "an answer" if failure is None else f"{failure.code}: {visible(failure.message)}"
        for failure in failures
    ]
    both_refused = all(failure is not None and failure.kind == "refused" for failure in failures)
    return Finding(agrees=both_refused, detail=" | ".join(texts))


def _rendered(reference: Answer, other: Answer) -> Finding:
    if reference.rendered is None or other.rendered is None:
        return NOTHING
    difference = prompt_difference(reference.rendered, other.rendered)
    return differs(difference) if difference else AGREES


def _expected(prompt: Prompt, reference: Answer, other: Answer) -> Finding:
    if prompt.expect is None:
        return NOTHING
    broken = [broken_expectations(prompt.expect, answer) for answer in (reference, other)]
    if broken == [[], []]:
        return AGREES
    return differs(" | ".join("; ".join(each) or "as expected" for each in broken))


def _text(reference: Answer, other: Answer, tolerance: Tolerance) -> Finding:
    difference = text_difference(reference, other)
    if difference is None:
        return AGREES if reference.text or not reference.tool_calls else NOTHING
    near = difference.is_near_tie(tolerance.near_tie_nats)
    detail = f"{'a near-tie at ' if near else ''}{difference}"
    return Finding(agrees=near and tolerance.near_ties_agree, detail=detail, is_near_tie=near)


def _reasoning(reference: str, other: str) -> Finding:
    if reference == other:
        return AGREES if reference else NOTHING
    at = first_difference(reference, other)
    before = ending(reference[:at])
    both = " | ".join(
        beginning(text[at:]) if text[at:] else "the end" for text in (reference, other)
    )
    return differs(f"character {at}, after {before}: {both}")


def _tool_calls(
    prompt: Prompt, reference: Sequence[CalledTool], other: Sequence[CalledTool]
) -> Finding:
    if not reference and not other and not prompt.body.get("tools"):
        return NOTHING
    one, two = ([_call(call) for call in calls] for calls in (reference, other))
    if one == two:
        return AGREES
    return differs(f"{_listed(one)} | {_listed(two)}")


def _call(call: CalledTool) -> str:
    return f"{call.name}({canonical(call.arguments)})"


def _listed(calls: Sequence[str]) -> str:
    return visible(", ".join(calls)) if calls else "no call"


def _json(prompt: Prompt, reference: Answer, other: Answer) -> Finding:
    problems = [json_problem(prompt.body, answer) for answer in (reference, other)]
    asked = [problem for problem in problems if problem is not None]
    if len(asked) < len(problems):
        return NOTHING  # a call on one side only is told as such
    detail = " | ".join(problem or "valid" for problem in asked)
    agrees = bool(asked[0]) == bool(asked[1])
    return Finding(agrees=agrees, detail=detail if any(asked) else "")


def _numbers(reference: int | None, other: int | None) -> Finding:
    if reference is None or other is None:
        return NOTHING
    return AGREES if reference == other else differs(f"{reference} | {other}")


def _words(reference: str | None, other: str | None) -> Finding:
    if reference == other:
        return AGREES
    return differs(f"{visible(reference or 'none')} | {visible(other or 'none')}")


def _logprobs(prompt: Prompt, reference: Answer, other: Answer, tolerance: float) -> Finding:
    has = bool(reference.logprobs), bool(other.logprobs)
    if has != (True, True):
        if prompt.wants_logprobs and has[0] != has[1]:
            return differs(" | ".join("some" if each else "none" for each in has))
        return NOTHING
    largest = 0.0
    for mine, yours in zip(reference.logprobs, other.logprobs, strict=False):
        if mine.token != yours.token:
            break
        largest = max(largest, abs(mine.logprob - yours.logprob))
    return Finding(agrees=largest <= tolerance, detail=f"they differ by up to {largest:.4f} nats")


def _vectors(
    reference: Sequence[Sequence[float]], other: Sequence[Sequence[float]], least: float
) -> Finding:
    shapes = [[len(vector) for vector in vectors] for vectors in (reference, other)]
    if shapes[0] != shapes[1]:
        return differs(f"dimensions {shapes[0]} | {shapes[1]}")
    lowest = min(
        (_cosine(one, two) for one, two in zip(reference, other, strict=True)), default=1.0
    )
    return Finding(agrees=lowest >= least, detail=f"cosine {lowest:.5f}")


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    if lengths == 0.0:
        return 1.0 if list(one) == list(other) else 0.0
    return sum(mine * yours for mine, yours in zip(one, other, strict=True)) / lengths
