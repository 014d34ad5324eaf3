"""Token counts: what an upstream says it used, and a guess where it says nothing."""

from collections.abc import Sequence

from msgspec import Struct

from engines.protocol import FinishReason, GenerateRequest, Usage

CHARACTERS_PER_TOKEN = 4
MAX_COUNT = 1_000_000_000  # of one call; no context is a hundredth of that

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
        """The same in our words.

        What cannot be a count is none: limits and budgets would be settled by it, and an
        integer of 64 bits is all that a database or Redis takes.
        """
        completion = _count(self.completion_tokens or self.output_tokens)
        prompt = self.prompt_tokens or self.input_tokens
        if prompt is None:
            prompt = (self.total_tokens or 0) - completion
        prompt = _count(prompt)
        of_prompt = self.prompt_tokens_details or self.input_tokens_details or _NO_DETAILS
        of_answer = self.completion_tokens_details or self.output_tokens_details or _NO_DETAILS
        return Usage(
            prompt_tokens=prompt,
            cached_tokens=min(_count(of_prompt.cached_tokens), prompt),
            completion_tokens=completion,
            reasoning_tokens=_count(of_answer.reasoning_tokens),
        )


def _count(told: int | None) -> int:
    return told if told is not None and 0 <= told <= MAX_COUNT else 0


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
