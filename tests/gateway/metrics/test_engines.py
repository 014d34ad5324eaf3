import asyncio

from structlog.testing import capture_logs

from engines.errors import Unavailable
from engines.metrics import ModelMetrics
from engines.protocol import Health
from gateway.metrics import ask_engines
from tests.fakes import ScriptedEngine
from tests.gateway.metrics.observed import a_model


class Counting(ScriptedEngine):
    """An engine that counts."""

    async def metrics(self) -> list[ModelMetrics]:
        return [a_model()]


class Hanging(Counting):
    async def metrics(self) -> list[ModelMetrics]:
        await asyncio.Event().wait()
        raise AssertionError


class Down(Counting):
    async def health(self) -> Health:
        return Health(ready=False, detail="its process ended")

    async def metrics(self) -> list[ModelMetrics]:
        raise Unavailable("it is being restarted")


class Broken(Counting):
    async def metrics(self) -> list[ModelMetrics]:
        raise ValueError("a bug")


async def test_one_that_counts_and_one_that_does_not() -> None:
    engines = {"gpu0": Counting(), "overflow": ScriptedEngine()}

    gpu0, overflow = await ask_engines(engines, {"gpu0": "paged", "overflow": "remote"})

    assert (gpu0.name, gpu0.kind, gpu0.health.ready) == ("gpu0", "paged", True)
    assert [model.model for model in gpu0.models] == ["qwen"]
    assert (overflow.kind, overflow.health.ready, overflow.models) == ("remote", True, ())


async def test_one_that_does_not_answer_hides_nothing_of_the_others() -> None:
    engines = {"gpu0": Counting(), "hangs": Hanging(), "down": Down(), "broken": Broken()}

    with capture_logs() as logs:
        states = await ask_engines(engines, {}, patience_seconds=0.05)

    assert [(state.name, state.health.ready, len(state.models)) for state in states] == [
        ("gpu0", True, 1),
        ("hangs", True, 0),
        ("down", False, 0),
        ("broken", True, 0),
    ]
    assert [(entry["event"], entry["engine"]) for entry in logs] == [
        ("engine_metrics_failed", "broken")
    ]
