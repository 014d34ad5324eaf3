"""100,000 random operations on a pool, in virtual time: nothing is lost, doubled or stuck."""

import asyncio
from random import Random

import pytest
from structlog.testing import capture_logs

from tests.engines.pool.random_world import MAX_WAIT_SECONDS, NAMES, World
from tests.virtual_time import run_in_virtual_time

NUM_OPERATIONS = 25_000


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_budget_is_kept_and_each_request_is_answered_once(seed: int) -> None:
    async def main() -> World:
        world = World(Random(seed))
        for _ in range(NUM_OPERATIONS):
            await world.step()
        world.taken_by_others = 0
        await world.settle()
        for name in NAMES:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await world.pool.unload(name)
        world.check()
        assert world.held == {}
        await world.pool.close()
        return world

    with capture_logs():  # printing them would take longer than all the rest
        world = run_in_virtual_time(main)

    assert set(world.answers) == set(range(1, world.num_requests + 1))
    assert set(world.answers.values()) == {1}
    assert world.longest_wait <= MAX_WAIT_SECONDS
    # All that can happen did, or the test says less than it seems to.
    assert world.outcomes.keys() >= {
        "answered", "cancelled", "overloaded", "unavailable", "model_not_found", "unloaded",
    }  # fmt: skip
