import asyncio

from structlog.testing import capture_logs

from engines.errors import Unavailable
from engines.protocol import Health
from gateway.targets import HealthWatch, Targets
from tests.fakes import ScriptedEngine
from tests.virtual_time import run_in_virtual_time


class Patient(ScriptedEngine):
    """An engine that says of itself what the test wants."""

    says: Health | Exception | float = Health(ready=True)

    async def health(self) -> Health:
        if isinstance(self.says, float):
            await asyncio.sleep(self.says)
            return Health(ready=True)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def seen(says: Health | Exception | float) -> tuple[str, str]:
    """What becomes of a target whose engine says this, and the detail of why."""

    async def run() -> tuple[str, str]:
        engine = Patient(name="gpu0")
        engine.says = says
        targets = Targets(clock=asyncio.get_running_loop().time)
        targets.state("gpu0", "a")
        await HealthWatch(targets, lambda: {"gpu0": engine}, 5.0).look()
        return targets.why_not("gpu0", "a"), targets.snapshot().targets[0].detail

    return run_in_virtual_time(run)


def test_an_engine_that_is_ready_is_asked() -> None:
    assert seen(Health(ready=True)) == ("", "")
    assert seen(4.0) == ("", "")


def test_an_engine_that_is_not_ready_or_does_not_say_so_is_not_asked() -> None:
    assert seen(Health(ready=False, detail="loading")) == ("not_ready", "loading")
    assert seen(Unavailable("restarting")) == ("not_ready", "restarting")
    assert seen(60.0) == ("not_ready", "does not say how it is")


def test_a_health_check_that_breaks_does_not_end_the_watch() -> None:
    with capture_logs() as logged:
        assert seen(ZeroDivisionError()) == ("not_ready", "its health check failed")
    assert logged[0]["event"] == "health_check_broke"


def test_it_looks_again_and_again_and_sees_engines_that_come_later() -> None:
    async def run() -> None:
        engines = {"gpu0": Patient(name="gpu0")}
        targets = Targets(clock=asyncio.get_running_loop().time)
        async with HealthWatch(targets, lambda: engines, 5.0).running():
            await asyncio.sleep(1)
            assert targets.why_not("gpu0", "a") == ""
            engines["gpu0"].says = Health(ready=False)
            engines["gpu1"] = Patient(name="gpu1")
            engines["gpu1"].says = Health(ready=False)
            await asyncio.sleep(5)
            assert targets.why_not("gpu0", "a") == targets.why_not("gpu1", "a") == "not_ready"
            engines["gpu0"].says = Health(ready=True)
            await asyncio.sleep(5)
            assert targets.why_not("gpu0", "a") == ""

    run_in_virtual_time(run)
