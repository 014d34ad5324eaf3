import ast
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import BadRequest
from gateway.keys import Keys, Pepper
from gateway.keys.text import Claimed, new_claim, parsed, written
from gateway.ledger import open_ledger
from tests.gateway.keys.desk import PEPPER, Desk, with_other_secret


async def test_a_new_key_is_known_by_what_was_given(desk: Desk) -> None:
    new = await desk.keys.create("search", "nightly batch")

    key = await desk.keys.verify(new.secret)

    assert key is not None
    assert (key.id, key.team, key.name) == (new.key.id, "search", "nightly batch")
    assert new.secret.startswith(f"sk-penstock-{key.id}-")


async def test_two_keys_have_nothing_in_common(desk: Desk) -> None:
    one, two = await desk.keys.create("me", "a"), await desk.keys.create("me", "a")

    assert one.key.id != two.key.id
    assert one.key.digest != two.key.digest
    assert one.secret.split("-")[3] != two.secret.split("-")[3]


async def test_a_mistyped_key_is_refused_before_the_ledger_is_asked(desk: Desk) -> None:
    key = (await desk.keys.create("me", "laptop")).secret
    mistyped = [key[:-1], key[1:], key.swapcase(), key.replace(key[30], "?"), key + "x", ""]

    assert [await desk.keys.verify(text) for text in mistyped] == [None] * len(mistyped)
    assert desk.ledger.reads == 0


async def test_a_key_with_another_secret_is_refused(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    forged = with_other_secret(new)

    assert await desk.keys.verify(forged) is None
    assert await desk.keys.verify(new.secret) is not None
    assert await desk.keys.verify(forged) is None
    assert forged[:67] == new.secret[:67]


async def test_an_unknown_id_is_refused(desk: Desk) -> None:
    assert await desk.keys.verify(written(new_claim())) is None
    assert desk.ledger.reads == 1


async def test_one_keys_row_cannot_stand_in_for_another(desk: Desk) -> None:
    mine, theirs = await desk.keys.create("me", "a"), await desk.keys.create("them", "b")
    claim = parsed(mine.secret)
    assert claim is not None
    desk.ledger._replace(theirs.key.id, digest=mine.key.digest)

    assert await desk.keys.verify(written(Claimed(theirs.key.id, claim.secret))) is None


async def test_a_revoked_key_is_refused_at_once_where_it_was_revoked(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    assert await desk.keys.verify(new.secret)

    revoked = await desk.keys.revoke(new.key.id)

    assert revoked is not None
    assert (revoked.before.revoked_at, revoked.after.revoked_at) == (None, desk.now())
    assert await desk.keys.verify(new.secret) is None


async def test_a_key_expires_while_it_is_remembered(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop", timedelta(seconds=3))
    assert await desk.keys.verify(new.secret)

    desk.clock.advance(3.0)

    assert await desk.keys.verify(new.secret) is None
    assert desk.ledger.reads == 1


async def test_the_last_use_is_written_later_and_at_the_end(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    desk.clock.advance(60)
    await desk.keys.verify(new.secret)
    assert desk.ledger.records[new.key.id].last_used_at is None

    await desk.keys.close()

    used = datetime.fromtimestamp(desk.clock.now, UTC)
    assert desk.ledger.records[new.key.id].last_used_at == used


async def test_the_last_use_is_kept_while_the_ledger_is_down(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop")
    await desk.keys.verify(new.secret)
    desk.ledger.is_down = True
    await desk.keys.flush()
    desk.ledger.is_down = False

    await desk.keys.flush()

    assert desk.ledger.records[new.key.id].last_used_at is not None


async def test_a_refused_key_is_not_marked_as_used(desk: Desk) -> None:
    new = await desk.keys.create("me", "laptop", timedelta(seconds=1))
    desk.clock.advance(2)
    await desk.keys.verify(new.secret)
    await desk.keys.verify(with_other_secret(new))

    await desk.keys.flush()

    assert desk.ledger.records[new.key.id].last_used_at is None


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "x" * 201, "\x1b[31m"])
async def test_a_name_that_cannot_be_is_refused(desk: Desk, text: str) -> None:
    with pytest.raises(BadRequest, match="name") as refused:
        await desk.keys.create("me", text)
    assert refused.value.param == "name"
    with pytest.raises(BadRequest, match="team"):
        await desk.keys.create(text, "laptop")
    assert desk.ledger.records == {}


@pytest.mark.parametrize("expires_in", [timedelta(0), timedelta(days=-1), timedelta.max])
async def test_a_time_that_cannot_be_is_refused(desk: Desk, expires_in: timedelta) -> None:
    with pytest.raises(BadRequest, match="expires"):
        await desk.keys.create("me", "laptop", expires_in)


async def test_the_ledgers_file_holds_no_secret(tmp_path: Path) -> None:
    async with (
        open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}") as ledger,
        Keys(ledger, pepper=PEPPER) as keys,
    ):
        new = await keys.create("me", "laptop")
        assert await keys.verify(new.secret) is not None
        kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())

    secret = new.secret.split("-")[3]
    assert new.key.id.encode() in kept
    for form in (secret.encode(), hashlib.sha256(secret.encode()).digest(), b"p" * 32):
        assert form not in kept


async def test_a_key_needs_the_pepper_it_was_made_with(desk: Desk) -> None:
    key = (await desk.keys.create("me", "laptop")).secret

    assert await desk.another(Pepper([b"q" * 32])).verify(key) is None
    rotated = desk.another(Pepper([b"q" * 32, b"p" * 32]))
    assert await rotated.verify(key) is not None
    newer = await rotated.create("me", "laptop")
    assert await desk.keys.verify(newer.secret) is None
    assert await rotated.verify(newer.secret) is not None
    await rotated.close()


def test_secrets_are_compared_in_constant_time_only() -> None:
    root = Path(__file__).parents[3]
    files = ["gateway/keys/keys.py", "gateway/keys/pepper.py", "plugins/api_keys.py"]
    compared = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file in files
        for node in ast.walk(ast.parse((root / file).read_text()))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and any(word in ast.unparse(node) for word in ("secret", "digest", "credential", "value"))
    ]

    assert compared == []
