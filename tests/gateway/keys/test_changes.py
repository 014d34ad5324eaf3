"""What can be done to a key after it was made."""

from datetime import timedelta

import pytest

from gateway.errors import BadRequest
from gateway.keys import KeyChange, Keys
from gateway.narrowing import NOT_NARROWED, Narrowing
from tests.gateway.keys.desk import Desk

HOUR = timedelta(hours=1)


async def test_a_disabled_key_is_refused_until_it_is_enabled(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    assert await desk.keys.verify(new.secret)

    await desk.keys.disable(new.key.id)
    assert await desk.keys.verify(new.secret) is None
    await desk.keys.enable(new.key.id)

    assert await desk.keys.verify(new.secret)


async def test_the_first_times_stand(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    first = desk.now()
    await desk.keys.disable(new.key.id)
    await desk.keys.revoke(new.key.id)
    desk.clock.advance(60)

    await desk.keys.disable(new.key.id)
    again = await desk.keys.revoke(new.key.id)

    assert again is not None
    assert again.before == again.after
    assert (again.after.disabled_at, again.after.revoked_at) == (first, first)


async def test_an_expiry_may_be_moved_and_taken_away(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop", HOUR)
    await desk.keys.expire(new.key.id, 3 * HOUR)
    desk.clock.advance(2 * 3600)
    assert await desk.keys.verify(new.secret)

    await desk.keys.expire(new.key.id, None)
    desk.clock.advance(10_000 * 3600)
    assert await desk.keys.verify(new.secret)

    await desk.keys.expire(new.key.id, HOUR)
    desk.clock.advance(3600)
    assert await desk.keys.verify(new.secret) is None


@pytest.mark.parametrize("ended", ["revoked", "expired"])
@pytest.mark.parametrize("change", ["enable", "expire", "narrow", "rotate"])
async def test_what_has_ended_cannot_be_brought_back(desk: Desk, ended: str, change: str) -> None:
    new = await desk.keys.create("me", "laptop", HOUR)
    if ended == "revoked":
        await desk.keys.revoke(new.key.id)
    else:
        desk.clock.advance(3600)

    with pytest.raises(BadRequest, match=f"is {ended}"):
        await changed(desk.keys, new.key.id, change)

    assert await desk.keys.verify(new.secret) is None


async def changed(keys: Keys, key_id: str, change: str) -> KeyChange | None:
    match change:
        case "expire":
            return await keys.expire(key_id, None)
        case "narrow":
            return await keys.narrow(key_id, NOT_NARROWED)
        case "rotate":
            found = await keys.rotate(key_id, HOUR)
            return None if found is None else found[1]
        case _:
            found = getattr(keys, change)
            return await found(key_id)


@pytest.mark.parametrize("change", ["revoke", "disable", "enable", "expire", "narrow", "rotate"])
async def test_a_key_that_is_not_there_is_none(desk: Desk, change: str) -> None:
    assert await changed(desk.keys, "k3v90q2mxw7a", change) is None


async def test_both_secrets_work_within_the_grace_and_one_after_it(desk: Desk) -> None:
    old = await desk.keys.create("me", "laptop", narrowing=Narrowing(models=["chat-*"]))
    assert await desk.keys.verify(old.secret)

    found = await desk.keys.rotate(old.key.id, HOUR)

    assert found is not None
    new, change = found
    assert new.key.id == old.key.id
    assert new.key.narrowing == old.key.narrowing
    assert (change.before, change.after) == (old.key, new.key)
    assert new.secret != old.secret
    desk.clock.advance(3599)
    assert await desk.keys.verify(old.secret)
    assert await desk.keys.verify(new.secret)
    desk.clock.advance(1)
    assert await desk.keys.verify(old.secret) is None
    assert await desk.keys.verify(new.secret)


async def test_a_rotation_elsewhere_lets_both_in_at_once(desk: Desk) -> None:
    old = await desk.keys.create("me", "laptop")
    assert await desk.keys.verify(old.secret)

    found = await desk.another().rotate(old.key.id, HOUR)
    desk.clock.advance(1)

    assert found is not None
    assert await desk.keys.verify(found[0].secret)
    assert await desk.keys.verify(old.secret)


async def test_without_grace_every_earlier_secret_ends_at_once(desk: Desk) -> None:
    first = await desk.keys.create("me", "laptop")
    second = await desk.keys.rotate(first.key.id, HOUR)
    third = await desk.keys.rotate(first.key.id, timedelta(0))

    assert second is not None
    assert third is not None
    assert await desk.keys.verify(first.secret) is None
    assert await desk.keys.verify(second[0].secret) is None
    assert await desk.keys.verify(third[0].secret)
    assert third[0].key.previous_digest is None


async def test_three_secrets_are_never_good_at_once(desk: Desk) -> None:
    first = await desk.keys.create("me", "laptop")
    second = await desk.keys.rotate(first.key.id, HOUR)

    with pytest.raises(BadRequest, match="works until") as refused:
        await desk.keys.rotate(first.key.id, HOUR)

    assert refused.value.param == "grace_seconds"
    assert second is not None
    assert await desk.keys.verify(first.secret)
    assert await desk.keys.verify(second[0].secret)
    desk.clock.advance(3600)
    assert await desk.keys.rotate(first.key.id, HOUR)


@pytest.mark.parametrize("end", ["revoke", "disable"])
async def test_what_ends_a_key_ends_both_its_secrets(desk: Desk, end: str) -> None:
    old = await desk.keys.create("me", "laptop")
    found = await desk.keys.rotate(old.key.id, HOUR)
    assert found is not None

    await changed(desk.keys, old.key.id, end)

    assert await desk.keys.verify(old.secret) is None
    assert await desk.keys.verify(found[0].secret) is None


async def test_a_grace_does_not_outlive_the_key(desk: Desk) -> None:
    old = await desk.keys.create("me", "laptop", HOUR)
    found = await desk.keys.rotate(old.key.id, 5 * HOUR)
    assert found is not None

    desk.clock.advance(3600)

    assert await desk.keys.verify(old.secret) is None
    assert await desk.keys.verify(found[0].secret) is None


async def test_who_still_uses_the_secret_before_is_told(desk: Desk) -> None:
    old = await desk.keys.create("me", "laptop")
    found = await desk.keys.rotate(old.key.id, HOUR)
    assert found is not None
    desk.clock.advance(60)
    await desk.keys.verify(old.secret)
    used_at = desk.now()
    desk.clock.advance(60)
    await desk.keys.verify(found[0].secret)

    await desk.keys.flush()

    record = desk.ledger.records[old.key.id]
    assert (record.previous_used_at, record.last_used_at) == (used_at, desk.now())


async def test_a_grace_cannot_be_negative(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")

    with pytest.raises(BadRequest):
        await desk.keys.rotate(new.key.id, -HOUR)


async def test_narrowing_replaces_what_was_there(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop", narrowing=Narrowing(models=["a"], limits="bulk"))

    change = await desk.keys.narrow(new.key.id, Narrowing(networks=["10.0.0.0/8"]))

    assert change is not None
    assert change.after.narrowing == Narrowing(networks=("10.0.0.0/8",))


@pytest.mark.parametrize(
    ("narrowing", "param"),
    [
        (Narrowing(models=[]), "models"),
        (Narrowing(models=["!chat-secret"]), "models"),
        (Narrowing(models=["!"]), "models"),
        (Narrowing(models=[""]), "models"),
        (Narrowing(models=["a\nb"]), "models"),
        (Narrowing(models=["x" * 201]), "models"),
        (Narrowing(endpoints=["*"] * 65), "endpoints"),
        (Narrowing(networks=["10.0.0.7/8"]), "networks"),
        (Narrowing(networks=["example.com"]), "networks"),
        (Narrowing(limits=""), "limits"),
    ],
)
async def test_a_narrowing_that_cannot_be_is_refused(
    desk: Desk, narrowing: Narrowing, param: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        await desk.keys.create("me", "laptop", narrowing=narrowing)

    assert refused.value.param == param
    assert desk.ledger.records == {}
