"""What some engines can do beside answering; ask with `isinstance`.

`ModelLibrary` in engines/protocol.py and `Renders` in engines/rendering.py are two more.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from engines.metrics import ModelMetrics
from engines.protocol import GenerateRequest


@runtime_checkable
class Measured(Protocol):
    """An engine that can say in numbers what its models do; the local ones can."""

    async def metrics(self) -> Sequence[ModelMetrics]:
        """Every model that was ever loaded; cheap, and never loads anything."""
        ...


@runtime_checkable
class Relay(Protocol):
    """An engine that can pass a client's own request on, and the answer back, as they are.

    Only remote does. It answers a request whose `wire` it relays with `Relayed` events.
    """

    def relays(self, dialect: str, method: str, path: str) -> bool:
        """Whether this operation of the dialect may be passed on; cheap, and never asks."""
        ...


@runtime_checkable
class Lists(Protocol):
    """An engine that may know, without looking, that it has no model of some name.

    Only remote does: it keeps its upstream's list.
    """

    def lacks(self, model: str) -> bool:
        """Whether it surely has none; False where nothing is known. Cheap, and never asks."""
        ...


@runtime_checkable
class OtherTemplates(Protocol):
    """An engine that can make a prompt with a template that a request brings.

    Only gguf does, and not from a process of its own.
    """

    async def rendered_with(self, template: str, request: GenerateRequest) -> str:
        """What a template, in Go's language, makes of the request's messages.

        Loads the model if needed. Raises any `EngineError`."""
        ...
