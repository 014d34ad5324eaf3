from engines.errors import Unavailable
from engines.protocol import ModelInfo
from gateway.model_infos import FRESH_SECONDS, ModelInfos
from tests.fakes import FakeClock, ScriptedEngine


class Counted(ScriptedEngine):
    """Counts how often it is asked for its models; is ill when told."""

    def __init__(self, *names: str) -> None:
        super().__init__(model_names=names)
        self.num_asked = 0
        self.is_ill = False

    async def models(self) -> list[ModelInfo]:
        self.num_asked += 1
        if self.is_ill:
            raise Unavailable("ill")
        return list(await super().models())


async def test_an_engine_is_not_asked_twice_in_a_moment() -> None:
    clock, engine = FakeClock(), Counted("a", "b:latest")
    infos = ModelInfos(clock=clock)

    found = [await infos.find(engine, name) for name in ("a", "b", "b:latest", "a")]
    clock.advance(FRESH_SECONDS)
    await infos.find(engine, "a")

    assert [info.name for info in found if info] == ["a", "b:latest", "b:latest", "a"]
    assert engine.num_asked == 2


async def test_what_was_not_there_is_looked_for_again() -> None:
    engine = Counted("a")
    infos = ModelInfos(clock=FakeClock())

    missing = await infos.find(engine, "new")
    engine._model_names.append("new")
    found = await infos.find(engine, "new")

    assert missing is None
    assert found is not None


async def test_two_engines_are_two_and_an_ill_one_knows_nothing() -> None:
    first, second = Counted("a"), Counted("b")
    infos = ModelInfos(clock=FakeClock())

    assert await infos.find(first, "a")
    assert await infos.find(second, "a") is None
    second.is_ill = True
    assert await infos.find(second, "c") is None
    assert await infos.find(first, "a")
