"""POST /v1/completions: the older endpoint, text in and text out.

Several prompts and several choices of each become one list of requests, prompt
by prompt; choice `i` of prompt `p` has the index `p * n + i`, as at OpenAI.
"""

import codecs
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
from litestar.types import ASGIApp
from msgspec import UNSET, Struct, UnsetType

from engines.errors import RequestRefused
from engines.protocol import Event, Finished, GenerateRequest, Started, TextDelta, TokenLogprob
from gateway import pipeline
from gateway.api.bodies import Incoming
from gateway.api.framing import SSE_DONE, SSE_HEARTBEAT, SSE_TYPE, sse
from gateway.api.model_endpoint import model_endpoint
from gateway.api.openai.answers import (
    AnswerHead,
    WireUsage,
    answer_head,
    error_frame,
    opened,
    to_usage,
)
from gateway.api.openai.choices import side_by_side
from gateway.api.openai.constraints import blame, only_one
from gateway.api.openai.prompts import Prompt, to_prompts
from gateway.api.openai.relay import (
    AnyRequest,
    carrying,
    read_relayable,
    relayed,
    relayed_reply,
)
from gateway.api.openai.sampling import (
    SamplingFields,
    check_ranges,
    check_shared,
    to_constraint,
    to_sampling,
    to_stops,
)
from gateway.api.replies import JsonReply, StreamReply
from gateway.call import Call
from gateway.errors import BadRequest

PATH = "completions"
MAX_PROMPTS = 128
MAX_SEQUENCES = 128  # prompts times `n`
DEFAULT_MAX_TOKENS = 16  # OpenAI's, for this endpoint
IGNORED = frozenset({"user"})


class CreateCompletion(SamplingFields, kw_only=True, forbid_unknown_fields=True):
    """The request body."""

    prompt: str | list[str | int | list[int]] | None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | None = None
    suffix: str | None = None


class LegacyLogprobs(Struct, frozen=True, kw_only=True):
    """Log-probabilities as four lists; offsets count characters of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float | None]  # null for a prompt's first token
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(Struct, frozen=True):
    """One answer, or a piece of it."""

    text: str
    index: int
    logprobs: LegacyLogprobs | None
    finish_reason: str | None


class Completion(Struct, frozen=True, kw_only=True):
    """The answer; its chunks have the same shape."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: Sequence[CompletionChoice]
    usage: WireUsage | UnsetType | None = UNSET


_DECODER = msgspec.json.Decoder(CreateCompletion)


def to_requests(body: CreateCompletion, call_id: str) -> list[GenerateRequest]:
    """One request for each choice of each prompt. Raises `BadRequest` that names a field."""
    if body.prompt is None:
        raise BadRequest("prompt is null; not every model can begin from nothing", param="prompt")
    prompts = to_prompts(body.prompt, "prompt", at_most=MAX_PROMPTS)
    _check(body, prompts)
    constraint = only_one(to_constraint(body))
    stops = to_stops(body.stop)
    num_choices = body.n or 1
    return [
        GenerateRequest(
            id=f"{call_id}-{place * num_choices + nth}",
            model=body.model,
            prompt=prompt,
            suffix=body.suffix or None,
            max_tokens=body.max_tokens if body.max_tokens is not None else DEFAULT_MAX_TOKENS,
            stop=stops,
            sampling=to_sampling(body, nth=nth),
            constraint=constraint,
            logprobs=body.logprobs,
            prompt_logprobs=body.logprobs if body.echo else None,
        )
        for place, prompt in enumerate(prompts)
        for nth in range(num_choices)
    ]


async def stream(
    call: Call,
    body: CreateCompletion,
    head: AnswerHead,
    streams: Sequence[AsyncGenerator[Event, None]],
) -> AsyncGenerator[bytes, None]:
    """The answer as frames: text, a finish for each choice, usage if asked, the end."""
    choices = [_Choice(index, body, call) for index in range(len(streams))]
    usage = None if body.include_usage else UNSET
    finished: dict[int, Finished] = {}
    try:
        async with aclosing(side_by_side(streams)) as events:
            async for index, event in events:
                if isinstance(event, Started) and body.echo:
                    yield _frame(head, [choices[index].echo(event)], usage)
                elif isinstance(event, TextDelta):
                    piece = choices[index].piece(event.text, event.logprobs)
                    yield _frame(head, [piece], usage)
                elif isinstance(event, Finished):
                    finished[index] = event
                    last = CompletionChoice("", index, None, event.reason.value)
                    yield _frame(head, [last], usage)
    except Exception as error:  # noqa: BLE001 - the status is out: the failure goes in the stream
        yield error_frame(call, error)
        return
    if body.include_usage:
        yield _frame(head, [], to_usage(finished, choices_per_prompt=body.n or 1))
    yield SSE_DONE


async def fold(
    call: Call,
    body: CreateCompletion,
    head: AnswerHead,
    streams: Sequence[AsyncGenerator[Event, None]],
) -> Completion:
    """The same events as one answer."""
    choices = [_Choice(index, body, call) for index in range(len(streams))]
    finished: dict[int, Finished] = {}
    async with aclosing(side_by_side(streams)) as events:
        async for index, event in events:
            if isinstance(event, Started) and body.echo:
                choices[index].echo(event)
            elif isinstance(event, TextDelta):
                choices[index].add(event)
            elif isinstance(event, Finished):
                finished[index] = event
    return Completion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        choices=[choice.whole(finished[choice.index]) for choice in choices],
        usage=to_usage(finished, choices_per_prompt=body.n or 1),
    )


class _Choice:
    """What one choice has said so far, and where in its text the next token begins."""

    def __init__(self, index: int, body: CreateCompletion, call: Call) -> None:
        self.index = index
        prompt = call.requests[index].prompt
        self._prompt = prompt if isinstance(prompt, str) else ""
        self._wants_logprobs = body.logprobs is not None
        self._num_alternatives = body.logprobs or 0
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._first: bytes | None = None  # of an echoed prompt's tokens, which nothing scores
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def echo(self, started: Started) -> CompletionChoice:
        """Begin with the prompt; what is returned is its piece of a stream."""
        scores = started.prompt_logprobs or ()
        if self._wants_logprobs:
            text = self._prompt.encode()
            num_scored = sum(len(score.token) for score in scores)
            self._first = text[: max(0, len(text) - num_scored)]
        self._text.append(self._prompt)
        self._logprobs.extend(scores)
        return CompletionChoice(self._prompt, self.index, self._to_wire(scores), None)

    def add(self, event: TextDelta) -> None:
        self._text.append(event.text)
        self._logprobs.extend(event.logprobs)

    def piece(self, text: str, logprobs: Sequence[TokenLogprob]) -> CompletionChoice:
        return CompletionChoice(text, self.index, self._to_wire(logprobs), None)

    def whole(self, finished: Finished) -> CompletionChoice:
        self._offset = 0
        logprobs = self._to_wire(self._logprobs)
        return CompletionChoice("".join(self._text), self.index, logprobs, finished.reason.value)

    def _to_wire(self, entries: Sequence[TokenLogprob]) -> LegacyLogprobs | None:
        if not self._wants_logprobs:
            return None
        is_first = self._first is not None and self._offset == 0
        tokens = [entry.token for entry in entries]
        values: list[float | None] = [entry.logprob for entry in entries]
        top: list[dict[str, float] | None] = [_alternatives(entry) for entry in entries]
        if is_first:
            tokens, values, top = [self._first or b"", *tokens], [None, *values], [None, *top]
        offsets: list[int] = []
        for token in tokens:
            offsets.append(self._offset)
            self._offset += len(self._decoder.decode(token))
        return LegacyLogprobs(
            tokens=[_text(token) for token in tokens],
            token_logprobs=values,
            top_logprobs=top if self._num_alternatives else None,
            text_offset=offsets,
        )


@model_endpoint("/v1/completions", name="openai.completions")
async def create_completion(request: Incoming) -> ASGIApp:
    """Go on with a text."""
    gateway, call = opened(request)
    body, wire = await read_relayable(gateway, call, request, PATH, _DECODER)
    if isinstance(body, AnyRequest):
        return await relayed(gateway, call, body, wire, _DECODER)
    requests = carrying(to_requests(body, call.id), wire)
    call.choices_per_prompt = body.n or 1
    call.session = body.user or ""
    try:
        streams = await pipeline.run(gateway, call, requests)
    except RequestRefused as error:
        blame(error, to_constraint(body))
        if error.param == "prompt_logprobs":
            error.param = "echo"
        raise
    if (reply := await relayed_reply(call, streams)) is not None:
        return reply
    head = answer_head(call, prefix="cmpl", model=body.model)
    if body.stream:
        call.streams = True
        frames = stream(call, body, head, streams)
        return StreamReply(frames, content_type=SSE_TYPE, heartbeat=SSE_HEARTBEAT)  # pyright: ignore[reportReturnType]
    answer = await fold(call, body, head, streams)
    return JsonReply(msgspec.json.encode(answer))  # pyright: ignore[reportReturnType]


def _check(body: CreateCompletion, prompts: Sequence[Prompt]) -> None:
    check_shared(body)
    check_ranges(body, {"logprobs": (0, 5)})
    num_choices = body.n or 1
    if len(prompts) * num_choices > MAX_SEQUENCES:
        raise BadRequest(
            f"{len(prompts)} prompts with n = {num_choices} would be "
            f"{len(prompts) * num_choices} answers; at most {MAX_SEQUENCES} in one request",
            param="n",
        )
    if body.best_of is not None and body.best_of != num_choices:
        raise BadRequest(
            f"best_of is {str(body.best_of)[:20]}; only the value of n ({num_choices}) can be "
            "honoured: every answer that is made is returned",
            param="best_of",
        )
    if body.echo and not all(isinstance(prompt, str) for prompt in prompts):
        raise BadRequest("echo needs prompts that are text, not token ids", param="echo")


def _frame(
    head: AnswerHead, choices: Sequence[CompletionChoice], usage: WireUsage | UnsetType | None
) -> bytes:
    chunk = Completion(
        id=head.id,
        created=head.created,
        model=head.model,
        system_fingerprint=head.system_fingerprint,
        choices=choices,
        usage=usage,
    )
    return sse(msgspec.json.encode(chunk))


def _alternatives(entry: TokenLogprob) -> dict[str, float]:
    return {_text(other.token): other.logprob for other in entry.top}


def _text(token: bytes) -> str:
    return token.decode(errors="replace")
