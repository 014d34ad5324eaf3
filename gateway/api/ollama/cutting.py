"""Cuts texts to embed down to what a model reads, as Ollama does, but not in silence.

Ollama's clients count on it: a document's chunks are seldom measured with the model's
own tokenizer. A header of the answer says how many texts lost their ends.
"""

from collections.abc import Sequence

import msgspec

from engines.errors import ContextTooLong
from engines.protocol import EmbedRequest, GenerateRequest
from gateway.call import Call
from gateway.gateway import Gateway

CUT_HEADER = "x-penstock-truncated"
_MARKS = 2  # what a tokenizer may put around a text: [CLS] and [SEP]
_MAX_ROUNDS = 12


class Cutting:
    """Shortens a request that was too long for the target that was asked last."""

    def __init__(self, gateway: Gateway, call: Call) -> None:
        self._gateway = gateway
        self._call = call

    async def __call__(self, request: EmbedRequest, error: ContextTooLong) -> EmbedRequest:
        """The same with every text short enough. Raises `error` if that cannot be known."""
        if error.context_tokens <= _MARKS or not self._call.tried:
            raise error
        longest = error.context_tokens - _MARKS
        inputs = [await self._cut(text, longest) for text in request.inputs]
        num_cut = sum(before != after for before, after in zip(request.inputs, inputs, strict=True))
        if not num_cut:
            raise error
        self._call.response_headers[CUT_HEADER] = str(num_cut)
        return msgspec.structs.replace(request, inputs=inputs)

    async def _cut(self, text: str | Sequence[int], longest: int) -> str | Sequence[int]:
        if not isinstance(text, str):
            return text[:longest]
        for _ in range(_MAX_ROUNDS):
            num_tokens = await self._count(text)
            if num_tokens <= longest or len(text) < 2:
                break
            # Its first part may be denser than the rest, so this may take some rounds.
            text = text[: max(1, min(len(text) - 1, len(text) * longest // num_tokens))]
        return text

    async def _count(self, text: str) -> int:
        tried = self._call.tried[-1]
        asked = GenerateRequest(id=self._call.id, model=tried.model, prompt=text)
        return await self._gateway.engines[tried.engine].count_tokens(asked)
