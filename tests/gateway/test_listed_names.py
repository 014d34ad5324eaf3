from pathlib import Path

from engines.errors import Unavailable
from gateway.listed_names import FRESH_SECONDS, ListedNames
from tests.fake_library import MODELS, FakeLibrary
from tests.fakes import FakeClock, ScriptedEngine
from tests.serving import read_scripted, write_policy


class Counted(FakeLibrary):
    """Counts how often it is asked for a spelling; is ill when told."""

    num_asked = 0
    is_ill = False

    async def listed_name(self, name: str) -> str | None:
        self.num_asked += 1
        if self.is_ill:
            raise Unavailable("ill")
        return await super().listed_name(name)


class Stage:
    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.shelf = Counted()
        self.shelf.names[:] = ["t5:latest", "chat-small"]
        self.names = ListedNames(clock=self.clock)
        self.policy = read_scripted(write_policy(directory, dict(MODELS)))

    async def find(self, name: str) -> str:
        engines = {"shelf": self.shelf, "bare": ScriptedEngine()}
        return await self.names.find(self.policy, engines, name)


async def test_an_engine_is_asked_once_for_a_name_that_is_listed_so(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    assert [await stage.find("t5:latest") for _ in range(3)] == ["t5:latest"] * 3
    assert stage.shelf.num_asked == 1
    stage.clock.advance(FRESH_SECONDS)
    await stage.find("t5:latest")
    stage.names.forget()
    await stage.find("t5:latest")
    assert stage.shelf.num_asked == 3


async def test_a_name_without_its_tag_is_remembered_too(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    assert [await stage.find("t5") for _ in range(3)] == ["t5"] * 3
    assert stage.shelf.num_asked == 1


async def test_names_of_the_policy_ask_nobody(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    assert await stage.find("chat-small") == "chat-small"
    assert await stage.find("gpt-4o-mini") == "gpt-4o-mini"
    assert stage.shelf.num_asked == 0


async def test_what_is_not_there_is_looked_for_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    assert await stage.find("NEW") == "NEW"
    stage.shelf.names.append("new")
    assert await stage.find("NEW") == "new"


async def test_of_an_engine_that_is_ill_nothing_is_remembered(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.shelf.is_ill = True
    assert await stage.find("T5") == "T5"
    stage.shelf.is_ill = False
    assert await stage.find("T5") == "t5"


async def test_memory_is_bounded(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    stage.shelf.names[:] = [f"m{number}" for number in range(5000)]
    for name in list(stage.shelf.names):
        await stage.find(name)

    assert len(stage.names) < 5000
