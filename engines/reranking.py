"""How an engine says which texts answer a question best.

An ability beside `Engine`: models that were trained for it read a question and a text
together and give one number. Those that pass requests on do it by `Relay`.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from msgspec import Struct

from engines.protocol import Usage


class RerankRequest(Struct, frozen=True, kw_only=True):
    """A question, and texts to score by how well they answer it."""

    id: str
    model: str  # the engine's name for it, not the public one
    query: str
    documents: Sequence[str]
    keep_alive_seconds: float | None = None
    owner: str = "-"
    weight: float = 1.0
    priority: int = 0


class Reranking(Struct, frozen=True, kw_only=True):
    """A number from 0 to 1 for each text, in the order of the request; more is better."""

    scores: Sequence[float]
    usage: Usage


@runtime_checkable
class Reranks(Protocol):
    """An engine with models that score texts."""

    async def rerank(self, request: RerankRequest) -> Reranking:
        """Score every text, loading the model if needed. Raises any `EngineError`.

        `Unsupported` for a model that was not trained for it."""
        ...
