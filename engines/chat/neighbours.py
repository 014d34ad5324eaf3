"""Makes one message of several that stand side by side and are of one role, as Ollama does."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any


def neighbours_joined(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as templates are given them, an empty line between texts that were joined.

    Answers of tools stay apart: each belongs to a call of its own."""
    return list(_joined(messages))


def _joined(messages: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for role, neighbours in groupby(messages, lambda message: message["role"]):
        first, *others = neighbours
        if not others or role == "tool":
            yield from (first, *others)
            continue
        said = {**first, "content": "\n\n".join(one["content"] for one in (first, *others))}
        calls = [call for one in (first, *others) for call in one.get("tool_calls", ())]
        yield {**said, "tool_calls": calls} if calls else said
