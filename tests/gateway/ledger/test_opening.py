import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from gateway.ledger import LedgerNotOpened, open_ledger
from gateway.ledger.opening import MIGRATIONS, open_engine
from gateway.ledger.private_files import create_once
from gateway.ledger.tables import metadata

OPEN_AND_INSERT = """
import asyncio, sys
from datetime import UTC, datetime
from gateway.ledger import ApiKey, open_ledger

async def main(url, name):
    print("ready", flush=True)
    sys.stdin.readline()
    async with open_ledger(url) as ledger:
        await ledger.insert_key(ApiKey(
            id=name, team="me", name=name, created_at=datetime.now(UTC),
            digest=bytes(32), pepper_version="1",
        ))

asyncio.run(main(*sys.argv[1:]))
"""


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def test_the_migrations_make_the_tables_that_the_queries_expect(ledger_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        return compare_metadata(MigrationContext.configure(connection), metadata)

    engine = await open_engine(ledger_url)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    await engine.dispose()

    assert found == []


async def test_a_crash_loses_nothing_that_was_written(tmp_path: Path) -> None:
    engine = await open_engine(url_of(tmp_path / "ledger.db"))
    async with engine.connect() as connection:
        pragmas = {
            name: (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    await engine.dispose()

    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


def test_processes_that_start_at_once_share_one_ledger(tmp_path: Path) -> None:
    path = tmp_path / "data" / "ledger.db"
    command = [sys.executable, "-W", "error", "-c", OPEN_AND_INSERT, url_of(path)]
    names = ["a", "b", "c"]
    pipe = subprocess.PIPE
    starting = [
        subprocess.Popen([*command, name], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for name in names
    ]
    for process in starting:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    for process in starting:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [(process.communicate(timeout=50)[1], process.returncode) for process in starting]

    assert ended == [("", 0)] * 3
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT id FROM api_keys ORDER BY id").fetchall() == [
            ("a",),
            ("b",),
            ("c",),
        ]
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]


async def test_openers_in_one_process_share_one_ledger(ledger_url: str) -> None:
    engines = await asyncio.gather(*(open_engine(ledger_url) for _ in range(6)))

    async with engines[0].connect() as connection:
        found = await connection.exec_driver_sql("SELECT version_num FROM alembic_version")
        assert len(found.fetchall()) == 1
    for engine in engines:
        await engine.dispose()


async def test_a_ledger_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    await (await open_engine(url_of(path))).dispose()
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()

    with pytest.raises(LedgerNotOpened, match=r"another version of Penstock.*9999"):
        async with open_ledger(url_of(path)):
            pass

    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT * FROM alembic_version").fetchall() == [("9999",)]


async def test_a_path_with_a_percent_sign_is_a_path(tmp_path: Path) -> None:
    async with open_ledger(url_of(tmp_path / "50%(x)s" / "ledger.db")) as ledger:
        assert await ledger.keys() == []


def test_the_migrations_lie_in_the_package() -> None:
    import gateway

    assert MIGRATIONS.is_relative_to(Path(gateway.__file__).parent)
    assert (MIGRATIONS / "env.py").is_file()
    assert list((MIGRATIONS / "versions").glob("0001_*.py"))


def test_the_first_file_in_place_stays(tmp_path: Path) -> None:
    path = tmp_path / "once"

    def write_while_another_comes_first(aside: Path) -> None:
        aside.write_text("mine")
        assert create_once(path, lambda other: other.write_text("theirs") and None)

    assert not create_once(path, write_while_another_comes_first)
    assert path.read_text() == "theirs"
    assert [file.name for file in tmp_path.iterdir()] == ["once"]


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def fail(aside: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        create_once(tmp_path / "data" / "once", fail)

    assert list((tmp_path / "data").iterdir()) == []
