"""One exchange: what the user says and everything that is said until the answer is complete."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Exchange:
    """A prompt with its one right answer, so that a greedy answer can be compared exactly.

    A tool exchange has more than two messages: the call, the tool's response, the answer.
    """

    messages: tuple[Message, ...]
    tools: tuple[Message, ...] = ()
    system: str | None = None
    """Set where the answer depends on the system prompt; elsewhere any, or none, will do."""


Skill = Callable[[random.Random], Exchange]


def ask(prompt: str, answer: str, system: str | None = None) -> Exchange:
    messages = ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer})
    return Exchange(messages, system=system)
