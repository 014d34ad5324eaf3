"""The whole answer to a chat request: its shape, and how events fold into it."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from engines.protocol import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from gateway.api.openai.answers import WireLogprob, WireUsage, to_logprobs


class WireFunction(Struct, frozen=True):
    """A called function."""

    name: str
    arguments: str


class WireCall(Struct, frozen=True):
    """A finished tool call."""

    id: str
    type: str
    function: WireFunction


class AnswerMessage(Struct, kw_only=True):
    """The assistant's message."""

    role: str = "assistant"
    content: str | None
    refusal: str | None = None
    annotations: list[Any] = []
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[WireCall] | UnsetType = UNSET
    function_call: WireFunction | UnsetType = UNSET


class WireLogprobs(Struct, frozen=True):
    """A choice's log-probabilities."""

    content: list[WireLogprob]
    refusal: None = None


class WireChoice(Struct, frozen=True):
    """One answer of `n`."""

    index: int
    message: AnswerMessage
    logprobs: WireLogprobs | None
    finish_reason: str


class ChatCompletion(Struct, frozen=True, kw_only=True):
    """The whole answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[WireChoice]
    usage: WireUsage
    service_tier: str | UnsetType = UNSET
    system_fingerprint: str


class FoldedChoice:
    """What one choice has said so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._calls: dict[int, tuple[str, str, list[str]]] = {}

    def add(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, TextDelta):
            self._text.append(event.text)
            self._logprobs.extend(event.logprobs)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolCallDelta):
            if event.index not in self._calls:
                self._calls[event.index] = (event.id or "", event.name or "", [])
            self._calls[event.index][2].append(event.arguments)

    def to_wire(
        self, index: int, finished: Finished, *, with_logprobs: bool, in_legacy_words: bool
    ) -> WireChoice:
        """The choice as the client reads it."""
        calls = [
            WireCall(id, "function", WireFunction(name, "".join(arguments)))
            for _, (id, name, arguments) in sorted(self._calls.items())
        ]
        answer = AnswerMessage(content="".join(self._text) if self._text or not calls else None)
        if self._reasoning:
            answer.reasoning_content = "".join(self._reasoning)
        if calls and in_legacy_words:
            answer.function_call = calls[0].function
        elif calls:
            answer.tool_calls = calls
        logprobs = WireLogprobs(to_logprobs(self._logprobs)) if with_logprobs else None
        return WireChoice(
            index,
            answer,
            logprobs,
            to_finish_reason(finished.reason, in_legacy_words=in_legacy_words),
        )


def to_finish_reason(reason: FinishReason, *, in_legacy_words: bool) -> str:
    """The word for why a choice ended; one of them has a deprecated form."""
    if reason is FinishReason.TOOL_CALLS and in_legacy_words:
        return "function_call"
    return reason.value
