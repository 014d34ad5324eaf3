"""Pieces of answers that several OpenAI endpoints share: ids, usage, log-probabilities."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from engines.protocol import Finished, TokenLogprob, Usage
from gateway.api.bodies import Incoming
from gateway.api.framing import sse
from gateway.api.openai.problem import openai_problem
from gateway.call import Call
from gateway.errors import problem_of

log = structlog.get_logger()

API_VERSION = "2020-10-01"


class AnswerHead(Struct, frozen=True, kw_only=True):
    """What every chunk of an answer repeats."""

    id: str
    created: int
    model: str  # the name that the client asked for
    system_fingerprint: str
    service_tier: str | None = None  # told only to those who asked for one


class PromptDetails(Struct, frozen=True):
    """Of the prompt's tokens."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionDetails(Struct, frozen=True):
    """Of the answer's tokens."""

    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class WireUsage(Struct, frozen=True, kw_only=True):
    """Tokens spent on the whole request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


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
    top_logprobs: list[WireTopLogprob]


def opened(request: Incoming) -> tuple[Any, Call]:
    """The gateway and the call of a request; notes the headers of this dialect."""
    state = request.scope["state"]
    call: Call = state["call"]
    call.response_headers.setdefault("openai-version", API_VERSION)
    return state["gateway"], call


def answer_head(
    call: Call, *, prefix: str, model: str, service_tier: str | None = None
) -> AnswerHead:
    """The head of this call's answer; the target that answers is known by now."""
    target = call.target
    answered_by = (
        f"{call.policy.digest}/{target.engine if target else ''}/{target and target.model}"
    )
    return AnswerHead(
        id=f"{prefix}-{call.id.removeprefix('req_')}",
        created=int(time.time()),
        model=model,
        system_fingerprint=f"fp_{hashlib.sha256(answered_by.encode()).hexdigest()[:10]}",
        service_tier=service_tier,
    )


def error_frame(call: Call, error: Exception) -> bytes:
    """The event that ends a stream that failed on the way; the call knows it failed."""
    problem = problem_of(error)
    if problem.code == "internal":
        log.error("call_failed", call=call.id, exc_info=error)
    call.error = call.error or problem
    if problem.answer is not None:
        return sse(msgspec.json.format(problem.answer, indent=-1))  # on one line
    return sse(openai_problem(problem))


def to_usage(finished: Mapping[int, Finished], *, choices_per_prompt: int) -> WireUsage:
    """The tokens of a request, by choice. Choices share their prompt, so it counts once."""
    own = [finished[index].usage for index in sorted(finished)]
    prompts: Sequence[Usage] = own[::choices_per_prompt]
    prompt_tokens = sum(usage.prompt_tokens for usage in prompts)
    completion_tokens = sum(usage.completion_tokens for usage in own)
    return WireUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptDetails(sum(usage.cached_tokens for usage in prompts)),
        completion_tokens_details=CompletionDetails(sum(usage.reasoning_tokens for usage in own)),
    )


def to_logprobs(entries: Sequence[TokenLogprob]) -> list[WireLogprob]:
    """Log-probabilities in the chat shape; `bytes` is exact where `token` cannot be."""
    return [
        WireLogprob(
            _text(entry.token),
            entry.logprob,
            list(entry.token),
            [WireTopLogprob(_text(t.token), t.logprob, list(t.token)) for t in entry.top],
        )
        for entry in entries
    ]


def _text(token: bytes) -> str:
    return token.decode(errors="replace")
