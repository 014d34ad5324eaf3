"""Token counts: what an upstream says it used, and a guess where it says nothing."""

from collections.abc import Sequence

from msgspec import Struct

from engines.protocol import FinishReason, GenerateRequest, Usage

CHARACTERS_PER_TOKEN = 4

_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Details(Struct, frozen=True):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


_NO_DETAILS = _Details()


class WireUsage(Struct, frozen=True, kw_only=True):
    """`usage` in any endpoint's words: chat says prompt and completion, responses input and
    output, embeddings and rerank often only the total."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None

    def to_usage(self) -> Usage:
        """The same in our words. A negative number is nobody's count."""
        completion = self.completion_tokens or self.output_tokens or 0
        prompt = self.prompt_tokens or self.input_tokens
        if prompt is None:
            prompt = (self.total_tokens or 0) - completion
        of_prompt = self.prompt_tokens_details or self.input_tokens_details or _NO_DETAILS
        of_answer = self.completion_tokens_details or self.output_tokens_details or _NO_DETAILS
        return Usage(
            prompt_tokens=max(prompt, 0),
            cached_tokens=max(of_prompt.cached_tokens or 0, 0),
            completion_tokens=max(completion, 0),
            reasoning_tokens=max(of_answer.reasoning_tokens or 0, 0),
        )


def to_reason(word: object) -> FinishReason:
    """Our word for a `finish_reason`; an upstream's own inventions count as a stop."""
    return _REASONS.get(word, FinishReason.STOP) if isinstance(word, str) else FinishReason.STOP


def guessed_prompt(request: GenerateRequest) -> int:
    """About how many tokens a prompt has, where nobody says."""
    prompt = request.prompt
    if prompt is not None and not isinstance(prompt, str):
        return len(prompt)
    texts: Sequence[str] = [prompt] if prompt else [message.text for message in request.messages]
    return guessed(sum(map(len, texts)))


def guessed(num_characters: int) -> int:
    """About how many tokens a text has."""
    return -(-num_characters // CHARACTERS_PER_TOKEN)
