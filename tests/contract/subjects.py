"""The engines that the contract suite is run against, each opened with one model."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import msgspec

from engines.protocol import Engine, GenerateRequest, Sampling
from tests.fakes import Hold, ScriptedEngine, Step


@dataclass(frozen=True)
class Subject:
    """An engine under test, the model to ask, and what the suite must know of it."""

    engine: Engine
    model: str
    num_loads: Callable[[], int]
    too_many_words: int  # a prompt of so many words cannot fit the model's context

    def endless(self, request: GenerateRequest) -> GenerateRequest:
        """The request, changed so that its answer does not end by itself soon."""
        return msgspec.structs.replace(request, sampling=Sampling(temperature=0.0, ignore_eos=True))


@asynccontextmanager
async def scripted() -> AsyncGenerator[Subject, None]:
    """The fake that other tests rely on."""

    def script(request: GenerateRequest) -> list[Step]:
        last = request.messages[-1].text
        steps: list[Step] = [f"{i} {last[:3]} " for i in range(20)]
        return [*steps, Hold()] if request.sampling.ignore_eos else steps

    engine = ScriptedEngine(script)
    await engine.start()
    yield Subject(engine, "scripted-model", lambda: engine.num_loads, too_many_words=200)
    await engine.close()


SUBJECTS: Mapping[str, Callable[[], AbstractAsyncContextManager[Subject]]] = {
    "scripted": scripted,
}
