"""What requests ask of answers, and what answers say at their end; the same for both."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from engines.protocol import (
    Constraint,
    Finished,
    FinishReason,
    JsonObject,
    JsonSchema,
    TokenLogprob,
    Usage,
)
from gateway.api.ollama.durations import nanoseconds
from gateway.call import Call
from gateway.errors import BadRequest

MAX_TOP_LOGPROBS = 20
Format = dict[str, Any] | str | None
Think = bool | str | None
_EFFORTS = ("low", "medium", "high", "max")


class WireTopLogprob(Struct, frozen=True):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int]


class WireLogprob(Struct, frozen=True):
    """The token that came, and what else could have."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[WireTopLogprob] | UnsetType = UNSET


class Figures(Struct, frozen=True, kw_only=True):
    """The end of an answer: why, how many tokens, and how long it all took in nanoseconds."""

    done_reason: str
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int


def to_constraint(given: Format) -> Constraint | None:
    """What `format` demands. Raises `BadRequest`."""
    if given is None or given == "":
        return None
    if isinstance(given, dict):
        return JsonSchema(schema=given)
    if given == "json":
        return JsonObject()
    raise BadRequest(f'format is {given[:60]!r}; it can be "json" or a JSON schema', param="format")


def to_effort(given: Think) -> str | None:
    """How much to think: a word for the model's template. Raises `BadRequest`."""
    if given is None or given == "":
        return None
    if isinstance(given, bool) or given in ("true", "false"):
        return "medium" if given in (True, "true") else "none"
    if given not in _EFFORTS:
        levels = ", ".join(_EFFORTS)
        raise BadRequest(f"think is {given[:60]!r}; it can be true, false, {levels}", param="think")
    return given


def to_num_logprobs(*, logprobs: bool | None, top_logprobs: int | None) -> int | None:
    """How many alternatives to tell of each token; None: nothing. Raises `BadRequest`."""
    if not 0 <= (top_logprobs or 0) <= MAX_TOP_LOGPROBS:
        raise BadRequest(
            f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}", param="top_logprobs"
        )
    return (top_logprobs or 0) if logprobs else None


def to_logprobs(entries: Sequence[TokenLogprob]) -> list[WireLogprob]:
    """Log-probabilities as Ollama writes them."""
    return [
        WireLogprob(
            _text(entry.token),
            entry.logprob,
            list(entry.token),
            [WireTopLogprob(_text(t.token), t.logprob, list(t.token)) for t in entry.top] or UNSET,
        )
        for entry in entries
    ]


def figures_of(call: Call, finished: Finished) -> Figures:
    """What the last line says; what an engine did not measure is measured from here."""
    now = time.monotonic()
    usage = finished.usage if finished.usage != Usage() else call.usage
    timing = finished.timing
    since_output = now - (call.first_output_at or now)
    return Figures(
        done_reason="length" if finished.reason is FinishReason.LENGTH else "stop",
        total_duration=nanoseconds(now - call.started_at),
        load_duration=nanoseconds(timing.loading),
        prompt_eval_count=usage.prompt_tokens,
        prompt_eval_duration=nanoseconds(timing.prefill),
        eval_count=usage.completion_tokens,
        # Clients divide by it.
        eval_duration=max(1, nanoseconds(timing.decode or since_output)),
    )


def nothing_to_answer(call: Call, reason: str) -> Mapping[str, object]:
    """The fields of an answer that only loads a model, or unloads it."""
    took = nanoseconds(time.monotonic() - call.started_at)
    return {"done": True, "done_reason": reason, "total_duration": took, "load_duration": took}


def _text(token: bytes) -> str:
    return token.decode(errors="replace")
