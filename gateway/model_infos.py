"""What engines have said of their models a moment ago.

Listing models makes an engine look at its files, and some calls need no more than
whether a model chats. What is wanted to the moment (what is loaded, say) is asked
of the engine itself.
"""

import time
from collections.abc import Callable, Mapping

from engines.errors import EngineError
from engines.protocol import Engine, ModelInfo

FRESH_SECONDS = 2.0


class ModelInfos:
    """Owned by the event loop; remembers one list for each engine."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[int, tuple[float, Engine, Mapping[str, ModelInfo]]] = {}

    async def find(self, engine: Engine, model: str) -> ModelInfo | None:
        """What is known of one model; None if the engine has none of that name, or is ill.

        Not finding it is never remembered: a model that was just pulled is there.
        """
        known = self._known.get(id(engine))
        if known is not None and known[1] is engine and self._clock() - known[0] < FRESH_SECONDS:
            found = _named(known[2], model)
            if found is not None:
                return found
        return _named(await self._asked(engine), model)

    async def _asked(self, engine: Engine) -> Mapping[str, ModelInfo]:
        try:
            infos = {info.name: info for info in await engine.models()}
        except EngineError:
            return {}
        # An engine that a reload replaced is forgotten with the next one that is asked.
        now = self._clock()
        self._known = {k: v for k, v in self._known.items() if now - v[0] < FRESH_SECONDS}
        self._known[id(engine)] = (now, engine, infos)
        return infos


def _named(infos: Mapping[str, ModelInfo], model: str) -> ModelInfo | None:
    # An engine that keeps its models as Ollama does gives a name without a tag this one.
    return infos.get(model) or infos.get(f"{model}:latest")
