import asyncio
from pathlib import Path

import pytest

from engines.protocol import GenerateRequest
from gateway.parity.answer import Answer
from gateway.parity.asking import answers_of, ask_all
from gateway.parity.problems import CannotCompare
from gateway.parity.prompt_set import Prompt
from gateway.parity.side import Manner
from tests.fakes import Hold, ScriptedEngine, Step
from tests.gateway.parity.places import policy_side, prompt


async def test_answers_are_in_the_order_of_the_prompts_however_many_are_asked_at_once(
    tmp_path: Path,
) -> None:
    first = Hold()

    def script(request: GenerateRequest) -> list[Step]:
        number = request.messages[-1].text
        if number == "0":
            return [first, number]
        if number == "4":
            first.release()
        return [number]

    side = policy_side(tmp_path / "dev", ScriptedEngine(script))
    prompts = [prompt(str(number)) for number in range(5)]
    told: list[tuple[str, int]] = []

    (heard,) = await ask_all(
        [side], prompts, Manner(), at_once=2, tell=lambda name, num: told.append((name, num))
    )

    assert [answer.text for answer in heard.answers] == ["0", "1", "2", "3", "4"]
    assert told == [("dev", number) for number in range(6)]


async def test_sides_are_open_one_after_the_other(tmp_path: Path) -> None:
    engines = [ScriptedEngine(), ScriptedEngine()]
    sides = [policy_side(tmp_path / str(at), engine) for at, engine in enumerate(engines)]
    seen: list[list[bool]] = []

    async def note() -> None:
        seen.append([(await engine.health()).ready for engine in engines])

    tasks: list[asyncio.Task[None]] = []
    await ask_all(
        sides,
        [prompt()],
        Manner(),
        tell=lambda _name, num: tasks.append(asyncio.create_task(note())) if num else None,
    )
    await asyncio.gather(*tasks)

    assert seen[1] == [False, True]


class Hopeless:
    """A side that gives up at its second prompt while the first still waits."""

    name = model = "hopeless"

    def __init__(self) -> None:
        self.was_cancelled = False

    async def ask(self, prompt: Prompt, manner: Manner) -> Answer:
        if prompt.name == "second":
            raise CannotCompare("never")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        raise AssertionError


async def test_a_side_that_will_never_answer_ends_what_it_was_asked_besides() -> None:
    side = Hopeless()

    with pytest.raises(CannotCompare, match="never"):
        await answers_of(side, [prompt("first"), prompt("second")], Manner(), at_once=2)

    assert side.was_cancelled
