"""How soon a change is felt, and what happens when the ledger does not answer."""

import asyncio

import pytest
import structlog
from structlog.contextvars import bound_contextvars
from structlog.testing import capture_logs

from gateway.errors import LedgerUnavailable
from gateway.keys import OwnProcess
from gateway.keys.text import new_claim, written
from tests.fakes import Hold
from tests.gateway.keys.desk import Desk, with_other_secret


async def test_a_known_key_is_looked_up_once(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")

    for _ in range(20):
        assert await desk.keys.verify(new.secret)
        desk.clock.advance(7.0)

    assert desk.ledger.reads == 1


async def test_within_a_second_the_ledger_is_not_asked_at_all(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    await desk.keys.verify(new.secret)
    desk.ledger.is_down = True
    desk.clock.advance(0.99)

    assert await desk.keys.verify(new.secret, patience_seconds=0)


async def test_an_unknown_id_is_not_looked_up_again_at_once(desk: Desk) -> None:
    unknown = written(new_claim())

    for _ in range(10):
        assert await desk.keys.verify(unknown) is None
    assert desk.ledger.reads == 1

    desk.clock.advance(5.1)
    await desk.keys.verify(unknown)
    assert desk.ledger.reads == 2


async def test_ids_that_do_not_exist_cannot_fill_the_memory(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = await desk.keys.create("me", "laptop")
    await desk.keys.verify(new.secret)

    for _ in range(1_500):
        await desk.keys.verify(written(new_claim()))

    assert len(desk.keys._known._absent) == 1_000
    reads = desk.ledger.reads
    assert await desk.keys.verify(new.secret)
    assert desk.ledger.reads == reads


@pytest.mark.parametrize("change", ["revoke", "disable"])
async def test_a_change_elsewhere_is_felt_within_a_second(desk: Desk, change: str) -> None:
    new = await desk.keys.create("me", "laptop")
    other = await desk.keys.create("me", "other")
    assert await desk.keys.verify(new.secret)
    assert await desk.keys.verify(other.secret)
    await getattr(desk.another(), change)(new.key.id)

    desk.clock.advance(1.0)

    assert await desk.keys.verify(new.secret) is None
    reads = desk.ledger.reads
    assert await desk.keys.verify(other.secret)
    assert desk.ledger.reads == reads


async def test_enabling_elsewhere_is_felt_too(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    await desk.keys.disable(new.key.id)
    assert await desk.keys.verify(new.secret) is None
    await desk.another().enable(new.key.id)

    desk.clock.advance(1.0)

    assert await desk.keys.verify(new.secret)


async def test_an_announced_change_is_felt_at_once() -> None:
    desk = Desk(OwnProcess())
    async with desk.keys:
        new = await desk.keys.create("me", "laptop")
        assert await desk.keys.verify(new.secret)

        await desk.another().revoke(new.key.id)

        assert await desk.keys.verify(new.secret) is None


async def test_a_look_up_that_began_before_a_change_is_not_remembered(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    desk.ledger.hold = Hold()
    racing = asyncio.create_task(desk.keys.verify(new.secret))
    await desk.ledger.hold.reached.wait()
    await desk.keys.revoke(new.key.id)
    desk.ledger.hold.release()
    await racing

    assert await desk.keys.verify(new.secret) is None


async def test_a_look_up_that_lasts_cannot_bring_back_what_was_changed_elsewhere(
    desk: Desk,
) -> None:
    new = await desk.keys.create("me", "laptop")
    await desk.keys.verify(written(new_claim()))  # from here on changes are watched
    desk.ledger.hold = Hold()
    racing = asyncio.create_task(desk.keys.verify(new.secret))
    await desk.ledger.hold.reached.wait()
    await desk.another().revoke(new.key.id)
    desk.clock.advance(1.0)
    waiting = asyncio.create_task(desk.keys.verify(new.secret))
    desk.ledger.hold.release()
    await racing
    await waiting
    desk.clock.advance(1.0)

    assert await desk.keys.verify(new.secret) is None


async def test_an_older_copy_of_the_ledger_is_not_taken_for_no_change(desk: Desk) -> None:
    gone = await desk.keys.create("me", "gone")
    await desk.keys.disable(gone.key.id)
    await desk.keys.enable(gone.key.id)
    assert await desk.keys.verify(gone.secret)

    del desk.ledger.records[gone.key.id]
    desk.ledger.last_change = 0
    desk.clock.advance(1.0)

    assert await desk.keys.verify(gone.secret) is None


async def test_calls_at_once_share_one_look_up(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    forged = with_other_secret(new)
    desk.ledger.hold = Hold()
    calls = [asyncio.create_task(desk.keys.verify(new.secret)) for _ in range(20)]
    calls += [asyncio.create_task(desk.keys.verify(forged)) for _ in range(5)]
    await desk.ledger.hold.reached.wait()
    desk.ledger.hold.release()

    answers = await asyncio.gather(*calls)

    assert [answer is not None for answer in answers] == [True] * 20 + [False] * 5
    assert (desk.ledger.reads, desk.ledger.checks) == (1, 1)


async def test_a_caller_who_leaves_does_not_end_the_look_up_of_the_others(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    desk.ledger.hold = Hold()
    leaving = asyncio.create_task(desk.keys.verify(new.secret))
    await desk.ledger.hold.reached.wait()
    staying = asyncio.create_task(desk.keys.verify(new.secret))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    desk.ledger.hold.release()

    assert await staying is not None


async def test_known_keys_outlive_the_ledger_for_as_long_as_the_policy_says(desk: Desk) -> None:
    known = (await desk.keys.create("me", "known")).secret
    new = (await desk.keys.create("me", "new")).secret
    assert await desk.keys.verify(known, patience_seconds=600)
    desk.ledger.is_down = True

    desk.clock.advance(599)
    assert await desk.keys.verify(known, patience_seconds=600)
    with pytest.raises(LedgerUnavailable):
        await desk.keys.verify(new, patience_seconds=600)
    desk.clock.advance(2)
    with pytest.raises(LedgerUnavailable):
        await desk.keys.verify(known, patience_seconds=600)
    desk.ledger.is_down = False
    await asyncio.sleep(0)
    await desk.keys._known._check_at_once()
    assert await desk.keys.verify(known, patience_seconds=600)
    assert await desk.keys.verify(new, patience_seconds=600)


async def test_without_patience_a_key_is_good_for_a_second_only(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    assert await desk.keys.verify(new.secret, patience_seconds=0)
    desk.ledger.is_down = True
    desk.clock.advance(1.0)

    with pytest.raises(LedgerUnavailable):
        await desk.keys.verify(new.secret, patience_seconds=0)


async def test_a_revocation_during_an_outage_is_felt_when_the_ledger_is_back(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    assert await desk.keys.verify(new.secret)
    desk.ledger.is_down = True
    desk.clock.advance(5)
    assert await desk.keys.verify(new.secret)
    desk.ledger.is_down = False
    await desk.another().revoke(new.key.id)

    await desk.keys._known._check_at_once()

    assert await desk.keys.verify(new.secret) is None


async def test_an_announced_change_is_felt_while_the_ledger_is_down() -> None:
    told = OwnProcess()
    desk = Desk(told)
    async with desk.keys:
        new = await desk.keys.create("me", "laptop")
        assert await desk.keys.verify(new.secret)
        desk.ledger.is_down = True
        desk.clock.advance(5)
        assert await desk.keys.verify(new.secret)

        await told.announce(new.key.id)

        with pytest.raises(LedgerUnavailable):
            await desk.keys.verify(new.secret)
        desk.ledger.is_down = False


async def test_a_ledger_that_hangs_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.keys.known_keys.LOOK_UP_SECONDS", 0.01)
    key = (await desk.keys.create("me", "laptop")).secret
    desk.ledger.hold = Hold()

    with pytest.raises(LedgerUnavailable):
        await desk.keys.verify(key)

    desk.ledger.hold = None
    assert await desk.keys.verify(key) is not None


async def test_nobody_waits_for_a_ledger_that_hangs_when_their_key_is_known(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.keys.known_keys.ANSWER_SECONDS", 0.01)
    new = await desk.keys.create("me", "laptop")
    assert await desk.keys.verify(new.secret)
    desk.ledger.check_hold = Hold()
    desk.clock.advance(1.0)

    assert await desk.keys.verify(new.secret)  # this one found out
    monkeypatch.setattr("gateway.keys.known_keys.ANSWER_SECONDS", 600.0)
    for _ in range(50):
        assert await desk.keys.verify(new.secret)
    desk.ledger.check_hold.release()


async def test_the_first_question_may_take_longer_than_those_that_follow(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.keys.known_keys.ANSWER_SECONDS", 0.0)
    new = await desk.keys.create("me", "laptop")
    desk.ledger.check_hold = Hold()
    asyncio.get_running_loop().call_later(0.02, desk.ledger.check_hold.release)

    assert await desk.keys.verify(new.secret)


async def test_calls_wake_the_watch_and_a_pause_ends_it(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    await desk.keys.verify(new.secret)
    watch = desk.keys._known._watching
    assert watch is not None
    assert not watch.done()

    desk.clock.advance(6)
    await watch

    await desk.keys.verify(new.secret)
    assert desk.keys._known._watching is not watch


async def test_what_is_told_of_the_ledger_names_no_call(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        for is_down in (False, True, False):
            desk.ledger.is_down = is_down
            desk.clock.advance(1.0)
            with bound_contextvars(call="req_1"):
                await desk.keys.verify(new.secret)
            checking = desk.keys._known._checking
            assert checking is not None
            await checking

    assert [entry["event"] for entry in logs] == ["key_changes_unknown", "key_changes_known_again"]
    assert all("call" not in entry for entry in logs)
