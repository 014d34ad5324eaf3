import asyncio

import pytest
from structlog.testing import capture_logs

from engines.errors import Unavailable
from gateway.policy import MirrorPolicy
from gateway.targets.mirrors import Mirrors
from tests.fakes import Hold
from tests.virtual_time import run_in_virtual_time

MIRROR = MirrorPolicy(engine="shadow", max_concurrent=2, timeout_seconds=60)


@pytest.fixture
def mirrors() -> Mirrors:
    return Mirrors(lambda: 0.5)


async def nothing() -> None:
    pass


async def until_idle(mirrors: Mirrors) -> None:
    while mirrors.report().running:  # noqa: ASYNC110 - nobody is told when a copy ends
        await asyncio.sleep(0)


async def test_copies_run_beside_and_beyond_their_number_are_dropped(mirrors: Mirrors) -> None:
    holds = [Hold(), Hold(), Hold()]
    for hold in holds:
        mirrors.send(MIRROR, "a", hold.wait)
    mirrors.send(MIRROR, "b", nothing)  # another mirror has places of its own

    assert (mirrors.report().sent, mirrors.report().dropped) == (3, 1)
    for hold in holds[:2]:
        await hold.reached.wait()
        hold.release()
    await until_idle(mirrors)
    mirrors.send(MIRROR, "a", nothing)
    await mirrors.close()
    assert mirrors.report().sent == 4


async def test_a_percentage_of_calls_is_copied(mirrors: Mirrors) -> None:
    for percent, sent in (50, 0), (51, 1), (0, 1), (100, 2):
        mirrors.send(MirrorPolicy(engine="shadow", percent=percent), "a", nothing)
        assert mirrors.report().sent == sent
    await mirrors.close()


async def test_draining_ends_copies_and_takes_no_more(mirrors: Mirrors) -> None:
    hold = Hold()
    mirrors.send(MIRROR, "a", hold.wait)
    await hold.reached.wait()

    mirrors.stop()
    mirrors.send(MIRROR, "a", hold.wait)
    await mirrors.close()

    assert mirrors.report().running == 0
    assert mirrors.report().sent == 1


async def test_a_copy_that_is_ended_before_it_began_leaves_nothing(mirrors: Mirrors) -> None:
    mirrors.send(MIRROR, "a", nothing)
    await mirrors.close()

    assert mirrors.report().running == 0


@pytest.mark.parametrize(
    ("error", "event"),
    [(Unavailable("gone"), "mirror_failed"), (ZeroDivisionError(), "mirror_broke")],
)
async def test_a_copy_that_fails_is_logged_and_nothing_else(
    mirrors: Mirrors, error: Exception, event: str
) -> None:
    async def failing() -> None:
        raise error

    with capture_logs() as logged:
        mirrors.send(MIRROR, "a", failing)
        await until_idle(mirrors)

    assert logged[0]["event"] == event
    assert mirrors.report().failed == 1


def test_a_copy_that_takes_too_long_is_ended() -> None:
    async def run() -> None:
        mirrors = Mirrors(lambda: 0.0)
        with capture_logs() as logged:
            mirrors.send(MIRROR, "a", lambda: asyncio.sleep(1e6))
            await asyncio.sleep(61)
        assert [entry["error"] for entry in logged] == ["timeout"]
        assert mirrors.report().running == 0

    run_in_virtual_time(run)
