import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from sqlalchemy.exc import StatementError

from gateway.errors import LedgerUnavailable, problem_of
from gateway.ledger import ApiKey, Ledger, LedgerNotOpened, open_ledger

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def a_key(key_id: str = "k3v90q2mxw7a", **changes: object) -> ApiKey:
    key = ApiKey(
        id=key_id,
        team="me",
        name="laptop",
        created_at=NOON,
        digest=bytes(range(32)),
        pepper_version="abc",
    )
    return msgspec.structs.replace(key, **changes)


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncGenerator[Ledger, None]:
    async with open_ledger(ledger_url) as ledger:
        yield ledger


async def test_a_key_comes_back_as_it_went_in(ledger: Ledger) -> None:
    key = a_key(expires_at=NOON + timedelta(days=30))

    await ledger.insert_key(key)

    assert await ledger.key(key.id) == key
    assert await ledger.key("another") is None


async def test_times_come_back_in_utc_whatever_zone_they_had(ledger: Ledger) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))

    await ledger.insert_key(a_key(created_at=elsewhere))

    found = await ledger.key("k3v90q2mxw7a")
    assert found is not None
    assert found.created_at == NOON
    assert found.created_at.tzinfo is UTC


async def test_a_time_without_a_zone_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerUnavailable) as refused:
        await ledger.insert_key(a_key(created_at=datetime(2026, 3, 1)))

    assert isinstance(refused.value.__cause__, StatementError)
    assert await ledger.keys() == []


async def test_keys_are_listed_oldest_first(ledger: Ledger) -> None:
    await ledger.insert_key(a_key("newer", created_at=NOON))
    await ledger.insert_key(a_key("older", created_at=NOON - timedelta(days=1)))

    assert [key.id for key in await ledger.keys()] == ["older", "newer"]


async def test_revoking_keeps_the_row_and_the_first_time(ledger: Ledger) -> None:
    await ledger.insert_key(a_key())

    first = await ledger.revoke_key("k3v90q2mxw7a", NOON)
    second = await ledger.revoke_key("k3v90q2mxw7a", NOON + timedelta(hours=1))

    assert first is not None
    assert first.revoked_at == NOON
    assert second == first
    assert await ledger.keys() == [first]
    assert await ledger.revoke_key("another", NOON) is None


async def test_the_last_use_never_goes_back(ledger: Ledger) -> None:
    await ledger.insert_key(a_key("one"))
    await ledger.insert_key(a_key("two"))

    await ledger.touch_keys({"one": NOON, "two": NOON})
    await ledger.touch_keys({"one": NOON - timedelta(1), "two": NOON + timedelta(1), "gone": NOON})

    assert [key.last_used_at for key in await ledger.keys()] == [NOON, NOON + timedelta(1)]


async def test_what_a_key_is_called_is_data_and_never_sql(ledger: Ledger) -> None:
    hostile = "'; DROP TABLE api_keys; --"
    await ledger.insert_key(a_key(name=hostile, team='" OR 1=1'))

    assert await ledger.key("' OR '1'='1") is None
    assert [key.name for key in await ledger.keys()] == [hostile]


async def test_it_outlives_its_process(tmp_path: Path) -> None:
    async with open_ledger(url_of(tmp_path / "ledger.db")) as ledger:
        await ledger.insert_key(a_key())

    async with open_ledger(url_of(tmp_path / "ledger.db")) as ledger:
        assert await ledger.keys() == [a_key()]


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ledger.db"

    async with open_ledger(url_of(path)) as ledger:
        await ledger.insert_key(a_key())
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}

    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}


async def test_a_ledger_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_ledger(url_of(path)):
        pass
    path.chmod(0o644)

    async with open_ledger(url_of(path)):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary, " * 200)
    path.chmod(0o644)

    with pytest.raises(LedgerNotOpened, match=r"notes\.txt cannot be opened: file is not a datab"):
        async with open_ledger(url_of(path)):
            pass

    assert path.read_text() == "dear diary, " * 200
    assert path.stat().st_mode & 0o777 == 0o644


async def test_a_database_that_stops_answering_is_a_503(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_ledger(url_of(path)) as ledger:
        with closing(sqlite3.connect(path)) as database:
            database.execute("DROP TABLE api_keys")
        with pytest.raises(LedgerUnavailable) as refused:
            await ledger.insert_key(a_key())

    problem = problem_of(refused.value)
    assert (problem.status, problem.code, problem.retry_after_seconds) == (503, "unavailable", 1)
    assert "sqlite" not in problem.message.lower()


@pytest.mark.parametrize("url", ["nonsense", "oracle7://x", "sqlite+aiosqlite:/x:y@z:no/1", ""])
async def test_a_wrong_url_is_named_by_its_variable_and_not_shown(url: str) -> None:
    with pytest.raises(LedgerNotOpened, match="PENSTOCK_LEDGER") as refused:
        async with open_ledger(url):
            pass

    assert not url or url not in str(refused.value)


async def test_a_password_in_the_url_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(LedgerNotOpened) as refused:
        async with open_ledger("sqlite+aiosqlite://me:hunter2@host/x"):
            pass

    assert "hunter2" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_directory_in_the_ledgers_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerNotOpened, match=str(tmp_path)):
        async with open_ledger(url_of(tmp_path)):
            pass
