import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engines.errors import Overloaded, Unavailable
from gateway.targets.hedge import first_of
from tests.virtual_time import run_in_virtual_time

ended: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ended() -> None:
    ended.clear()


async def answer(name: str, seconds: float, error: Exception | None = None) -> str:
    try:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
    finally:
        ended.append(name)
    return name


async def discard(text: str) -> None:
    ended.append(f"discarded {text}")


def race(first: Any, second: Callable[[], Any]) -> str:
    async def run() -> str:
        return await first_of(first(), second, after_seconds=1.0, discard=discard)

    return run_in_virtual_time(run)


def test_an_answer_in_time_asks_nobody_else() -> None:
    asked: list[str] = []

    assert race(lambda: answer("a", 0.9), lambda: asked.append("b")) == "a"
    assert asked == []


def test_the_faster_one_wins_and_the_slower_one_has_ended_by_then() -> None:
    assert race(lambda: answer("a", 9), lambda: answer("b", 0.5)) == "b"
    assert ended == ["b", "a"]

    ended.clear()
    assert race(lambda: answer("a", 1.2), lambda: answer("b", 9)) == "a"
    assert ended == ["a", "b"]


def test_when_both_answer_at_once_the_other_answer_is_given_back() -> None:
    assert race(lambda: answer("a", 2.0), lambda: answer("b", 1.0)) in "ab"
    assert sum(one.startswith("discarded") for one in ended) == 1


def test_a_failure_before_the_second_is_asked_is_simply_raised() -> None:
    with pytest.raises(Unavailable, match="gone"):
        race(lambda: answer("a", 0.5, Unavailable("gone")), lambda: answer("b", 1))
    assert ended == ["a"]


def test_a_failure_afterwards_waits_for_the_other() -> None:
    assert race(lambda: answer("a", 2, Unavailable("x")), lambda: answer("b", 5)) == "b"
    assert race(lambda: answer("a", 9), lambda: answer("b", 1, Unavailable("x"))) == "a"


def test_when_both_fail_the_last_error_is_raised() -> None:
    with pytest.raises(Overloaded):
        race(lambda: answer("a", 2, Unavailable("x")), lambda: answer("b", 5, Overloaded("y")))


def test_an_error_of_ours_is_not_waited_over() -> None:
    with pytest.raises(ZeroDivisionError):
        race(lambda: answer("a", 2, ZeroDivisionError()), lambda: answer("b", 5))
    assert ended == ["a", "b"]


def test_with_nobody_to_ask_the_first_is_waited_for() -> None:
    assert race(lambda: answer("a", 9), lambda: None) == "a"


def test_a_caller_who_leaves_ends_both() -> None:
    async def run() -> None:
        racing = asyncio.create_task(
            first_of(answer("a", 9), lambda: answer("b", 9), after_seconds=1, discard=discard)
        )
        await asyncio.sleep(2)
        racing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await racing

    run_in_virtual_time(run)

    assert sorted(ended) == ["a", "b"]
