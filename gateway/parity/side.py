"""Where a model is asked: what policy_side.py and url_side.py have in common."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from gateway.parity.answer import Answer
from gateway.parity.prompt_set import Prompt


class Manner(Struct, frozen=True, kw_only=True):
    """How every prompt is asked, everywhere."""

    max_tokens: int = 128  # where a prompt does not say
    logprobs: bool = True  # asked for, where they can be had: they tell a near-tie
    timeout_seconds: float = 300.0  # for one answer


class Asker(Protocol):
    """A side that is open."""

    async def ask(self, prompt: Prompt, manner: Manner) -> Answer:
        """The answer, or why there is none. Raises `CannotCompare` if there will never be one."""
        ...


class Side(Protocol):
    """One place where a model is asked. Opened once, when it is its turn."""

    @property
    def name(self) -> str:
        """As the user wrote it."""
        ...

    @property
    def model(self) -> str:
        """The model's name there."""
        ...

    async def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise `CannotCompare` for what can be known before any side is opened."""
        ...

    def opened(self) -> AbstractAsyncContextManager[Asker]:
        """Ready to be asked. Raises `CannotCompare` if there is no such model or server."""
        ...
