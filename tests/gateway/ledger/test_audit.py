import asyncio
import hashlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from gateway.errors import LedgerUnavailable
from gateway.ledger import AuditHead, Ledger, canonical, open_ledger
from gateway.ledger.audit import FIRST
from tests.gateway.ledger.records import an_entry
from tests.gateway.ledger.test_ledger import a_key
from tests.postgres_server import PostgresServer

Tamper = Callable[[str], None]

APPEND = """
import asyncio, sys
from gateway.ledger import DoneBy, new_entry, open_ledger

async def main(url, name, count):
    async with open_ledger(url) as ledger:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(int(count)):
            await ledger.audit.append(new_entry(DoneBy(principal=name), "a.b", str(number)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def tamper(ledger_url: str, request: pytest.FixtureRequest) -> Tamper:
    """Runs SQL as somebody who may do everything to the database."""
    url = make_url(ledger_url)
    if url.get_backend_name() == "sqlite":

        def on_sqlite(sql: str) -> None:
            with closing(sqlite3.connect(str(url.database))) as database:
                database.execute("DROP TRIGGER IF EXISTS audit_log_no_update")
                database.execute("DROP TRIGGER IF EXISTS audit_log_no_delete")
                database.executescript(sql)
                database.commit()

        return on_sqlite
    server: PostgresServer = request.getfixturevalue("postgres")

    def on_postgres(sql: str) -> None:
        server.ask(str(url.database), f"ALTER TABLE audit_log DISABLE TRIGGER ALL; {sql}")

    return on_postgres


async def append(ledger: Ledger, count: int) -> AuditHead:
    """That many entries; the head after them."""
    for number in range(count):
        row = await ledger.audit.append(an_entry(f"k{number}"))
    return AuditHead(row.seq, row.hash)


async def test_rows_are_numbered_from_one_and_each_holds_the_hash_before(
    either_ledger: Ledger,
) -> None:
    await append(either_ledger, 3)

    newest_first = await either_ledger.audit.rows()

    assert [row.seq for row in newest_first] == [3, 2, 1]
    hashes = [row.hash for row in reversed(newest_first)]
    assert [row.previous for row in reversed(newest_first)] == [FIRST, *hashes[:-1]]


async def test_the_hash_can_be_checked_with_nothing_but_sha256(either_ledger: Ledger) -> None:
    await append(either_ledger, 1)

    [row] = await either_ledger.audit.rows()

    fields = {**msgspec.structs.asdict(row.entry), "seq": 1, "previous": "0" * 64}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == row.hash


def test_json_is_canonical_whatever_order_it_was_made_in() -> None:
    assert canonical({"b": 1, "a": {"d": None, "c": "ü"}}) == '{"a":{"c":"ü","d":null},"b":1}'


async def test_a_whole_chain_holds_and_tells_its_head(either_ledger: Ledger) -> None:
    nothing = await either_ledger.audit.verify()
    head = await append(either_ledger, 4)

    found = await either_ledger.audit.verify(expected=head)

    assert (nothing.rows, nothing.head, nothing.bad_seq) == (0, None, None)
    assert (found.rows, found.head, found.bad_seq) == (4, head, None)


@pytest.mark.parametrize(
    ("sql", "bad_seq", "reason"),
    [
        ("UPDATE audit_log SET subject = 'x' WHERE seq = 3", 3, "content was changed"),
        ("UPDATE audit_log SET after = '{}' WHERE seq = 1", 1, "content was changed"),
        ("UPDATE audit_log SET before = 'null' WHERE seq = 2", 2, "content was changed"),
        ("UPDATE audit_log SET principal = 'you' WHERE seq >= 4", 4, "content was changed"),
        ("UPDATE audit_log SET at = 'never' WHERE seq = 2", 2, "content was changed"),
        ("UPDATE audit_log SET hash = previous WHERE seq = 2", 2, "content was changed"),
        ("DELETE FROM audit_log WHERE seq = 2", 2, "row 2 is missing"),
        ("DELETE FROM audit_log WHERE seq <= 2", 1, "row 1 is missing"),
        ("DELETE FROM audit_log WHERE seq = 2; UPDATE audit_log SET seq = 2 WHERE seq = 3;"
         "UPDATE audit_log SET seq = 3 WHERE seq = 4; UPDATE audit_log SET seq = 4 WHERE seq = 5",
         2, "does not follow"),
    ],
)  # fmt: skip
async def test_the_first_row_that_was_tampered_with_is_found(
    either_ledger: Ledger, tamper: Tamper, sql: str, bad_seq: int, reason: str
) -> None:
    await append(either_ledger, 5)

    tamper(sql)
    found = await either_ledger.audit.verify()

    assert (found.bad_seq, found.rows) == (bad_seq, bad_seq - 1)
    assert reason in found.reason


async def test_a_cut_off_end_is_found_by_a_head_that_was_noted(
    either_ledger: Ledger, tamper: Tamper
) -> None:
    head = await append(either_ledger, 3)

    tamper("DELETE FROM audit_log WHERE seq = 3")

    assert (await either_ledger.audit.verify()).bad_seq is None
    found = await either_ledger.audit.verify(expected=head)
    assert (found.bad_seq, found.reason) == (3, "the log ends before row 3, which was seen")


async def test_a_chain_made_anew_is_found_by_a_head_that_was_noted(
    either_ledger: Ledger, tamper: Tamper
) -> None:
    head = await append(either_ledger, 2)
    tamper("DELETE FROM audit_log")
    await append(either_ledger, 3)

    assert (await either_ledger.audit.verify()).bad_seq is None
    found = await either_ledger.audit.verify(expected=head)
    assert (found.bad_seq, "made anew" in found.reason) == (2, True)


@pytest.mark.parametrize(
    "sql", ["UPDATE audit_log SET subject = 'x'", "DELETE FROM audit_log WHERE seq = 1"]
)
async def test_the_database_itself_refuses_to_change_a_row(
    ledger_url: str, either_ledger: Ledger, request: pytest.FixtureRequest, sql: str
) -> None:
    await append(either_ledger, 2)
    database = str(make_url(ledger_url).database)

    if ledger_url.startswith("sqlite"):
        with (
            closing(sqlite3.connect(database)) as connection,
            pytest.raises(sqlite3.IntegrityError, match="append-only"),
        ):
            connection.execute(sql)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        for refused in (sql, "TRUNCATE audit_log"):
            with pytest.raises(subprocess.CalledProcessError) as error:
                server.ask(database, refused)
            assert "append-only" in error.value.stderr

    assert (await either_ledger.audit.verify()).rows == 2


async def test_an_entry_that_comes_twice_is_there_once(either_ledger: Ledger) -> None:
    entry = an_entry()

    first = await either_ledger.audit.append(entry)
    await either_ledger.audit.append(an_entry())
    second = await either_ledger.audit.append(entry)

    assert second == first
    assert len(await either_ledger.audit.rows()) == 2


async def test_rows_are_read_by_page_action_and_subject(either_ledger: Ledger) -> None:
    for subject, action in (("a", "keys.create"), ("b", "keys.create"), ("a", "keys.revoke")):
        await either_ledger.audit.append(an_entry(subject, action))
    audit = either_ledger.audit

    assert [row.seq for row in await audit.rows(limit=2)] == [3, 2]
    assert [row.seq for row in await audit.rows(before=2)] == [1]
    assert [row.seq for row in await audit.rows(action="keys.create")] == [2, 1]
    assert [row.seq for row in await audit.rows(subject="a")] == [3, 1]


def test_processes_that_append_at_once_make_one_chain(ledger_url: str) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-W", "error", "-c", APPEND, ledger_url]
    running = [
        subprocess.Popen([*command, name, "15"], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        for name in ("one", "two")
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]

    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [(process.communicate(timeout=50)[1], process.returncode) for process in running]

    async def found() -> tuple[int, int | None, int]:
        async with open_ledger(ledger_url) as ledger:
            verified = await ledger.audit.verify()
            names = {row.entry.principal for row in await ledger.audit.rows()}
            return verified.rows, verified.bad_seq, len(names)

    assert [code for _, code in ended] == [0, 0], ended
    assert asyncio.run(found()) == (30, None, 2)


async def test_a_change_and_its_entry_are_kept_together(either_ledger: Ledger) -> None:
    with capture_logs() as logs:
        async with either_ledger.audited() as record:
            await either_ledger.insert_key(a_key())
            await record(an_entry("k3v90q2mxw7a"))

    assert [key.id for key in await either_ledger.keys()] == ["k3v90q2mxw7a"]
    [row] = await either_ledger.audit.rows()
    [entry] = [entry for entry in logs if entry["event"] == "audit_recorded"]
    assert (entry["seq"], entry["hash"]) == (1, row.hash)


async def test_a_change_whose_entry_cannot_be_kept_is_not_made(either_ledger: Ledger) -> None:
    with capture_logs() as logs, pytest.raises(RuntimeError, match="no"):
        async with either_ledger.audited() as record:
            await either_ledger.insert_key(a_key())
            await record(an_entry())
            raise RuntimeError("no")

    assert await either_ledger.keys() == []
    assert await either_ledger.audit.rows() == []
    assert not [entry for entry in logs if entry["event"] == "audit_recorded"]


async def test_what_another_task_asks_meanwhile_is_not_part_of_it(either_ledger: Ledger) -> None:
    other = asyncio.Event()

    async def look() -> list[str]:
        await other.wait()
        return [key.id for key in await either_ledger.keys()]

    looking = asyncio.create_task(look())
    async with either_ledger.audited():
        await either_ledger.insert_key(a_key())
        other.set()
        assert await looking == []
    assert len(await either_ledger.keys()) == 1


async def test_a_database_without_the_table_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with open_ledger(f"sqlite+aiosqlite:///{path}") as ledger:
        with closing(sqlite3.connect(path)) as database:
            database.execute("DROP TABLE audit_log")
        for asked in (ledger.audit.append(an_entry()), ledger.audit.verify()):
            with pytest.raises(LedgerUnavailable):
                await asked
