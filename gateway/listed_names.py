"""Turns a name into the spelling by which its model is listed, before anybody is asked about it.

Engines that keep model files list each model by one name, and mean it by others, too,
that differ in case, as Ollama does. Lists of who may use what are of listed names. So
a name becomes the listed one first: what a caller may do is decided about that
spelling, and that spelling is then used (docs/decisions/0072). Only names that a
wildcard stands for come to an engine as they are; those of models.toml are exact.
"""

import time
from collections.abc import Callable, Mapping

from engines.errors import EngineError, Unsupported
from engines.protocol import Engine, ModelLibrary
from gateway.policy import Policy

LATEST = ":latest"
FRESH_SECONDS = 30.0  # of a name that was its own listed spelling
_MAX_REMEMBERED = 4096


class ListedNames:
    """Owned by the event loop, for one policy; remembers names that need no turning."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listed: dict[str, float] = {}

    async def find(self, policy: Policy, engines: Mapping[str, Engine], name: str) -> str:
        """The listed spelling of `name`; itself where no engine knows another."""
        if name in policy.models or name in policy.aliases:
            return name
        if self._clock() < self._listed.get(name, 0.0):
            return name
        model, is_sure = policy.resolve(name), True
        for target in model.targets if model is not None else ():
            engine = engines.get(target.engine)
            if target.model is not None or not isinstance(engine, ModelLibrary):
                continue
            try:
                found = await listed_by(engine, name)
            except Unsupported:
                continue  # a child process whose engine keeps no files
            except EngineError:
                found = None  # whoever asks it for more will be told
            if found is not None:
                return self._remembered(name) if found == name else found
            is_sure = False  # it may come
        return self._remembered(name) if is_sure else name

    def __len__(self) -> int:
        return len(self._listed)

    def forget(self) -> None:
        """Names have come or gone."""
        self._listed.clear()

    def _remembered(self, name: str) -> str:
        if len(self._listed) >= _MAX_REMEMBERED:
            self._listed.clear()
        self._listed[name] = self._clock() + FRESH_SECONDS
        return name


async def listed_by(library: ModelLibrary, name: str) -> str | None:
    """How an engine lists the model of this name, None if it has none. Raises any `EngineError`.

    A tag `latest` that was not said is left out: with it and without are one name."""
    found = await library.listed_name(name)
    if found is None or found == name or name.lower().endswith(LATEST):
        return found
    return found.removesuffix(LATEST)
