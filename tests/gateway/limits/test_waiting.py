import asyncio

import pytest

from gateway.limits import WaitingLines


def soon(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_who_came_first_goes_first_and_lines_do_not_hold_each_other_up() -> None:
    lines, order = WaitingLines(), []

    async def stand(key: str, name: str) -> None:
        async with lines.turn(key, until=soon(30), max_waiting=10):
            order.append(name)

    async with lines.turn("a", until=soon(30), max_waiting=10):
        waiting = [asyncio.create_task(stand(*each)) for each in (("a", "1"), ("a", "2"))]
        await stand("b", "other")
        assert lines.is_waited_for("a")
        assert order == ["other"]
    await asyncio.gather(*waiting)

    assert order == ["other", "1", "2"]
    assert not lines.is_waited_for("a")
    assert lines.num_waiting == 0


async def test_whose_turn_does_not_come_in_time_leaves_the_line() -> None:
    lines = WaitingLines()

    async with lines.turn("a", until=soon(30), max_waiting=10):
        with pytest.raises(TimeoutError):
            async with lines.turn("a", until=soon(0.01), max_waiting=10):
                pass
        assert lines.num_waiting == 1

    assert lines.num_waiting == 0


async def test_a_line_that_is_full_takes_nobody() -> None:
    lines = WaitingLines()

    async with lines.turn("a", until=soon(30), max_waiting=1):
        with pytest.raises(TimeoutError):
            async with lines.turn("b", until=soon(30), max_waiting=1):
                pass
