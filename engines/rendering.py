"""How an engine shows the prompt that it makes of a request, token by token.

An ability beside `Engine`: those that run models here have it, an upstream does
not tell. `penstock parity` asks for it, since two engines that read different
prompts cannot be expected to answer alike.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from engines.protocol import GenerateRequest


class PromptToken(Struct, frozen=True):
    """One token of a prompt: its id, and the bytes that it spells, marks like `<|im_end|>` too."""

    id: int
    piece: bytes


class RenderedPrompt(Struct, frozen=True, kw_only=True):
    """What a model is given to read, to the token; `text` is what the tokens spell."""

    text: str
    tokens: Sequence[PromptToken]


@runtime_checkable
class Renders(Protocol):
    """An engine that can show its prompts."""

    async def render(self, request: GenerateRequest) -> RenderedPrompt:
        """The prompt that `generate` would compute, loading its model if needed.

        Raises any `EngineError`; a prompt that is too long for the model is shown all the same.
        """
        ...
