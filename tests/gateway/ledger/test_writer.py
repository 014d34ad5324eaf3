import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.errors import LedgerUnavailable
from gateway.ledger import RecordRefused, UsageRecord
from gateway.ledger.spool import Spool
from gateway.ledger.writer import BATCH, UsageWriter
from tests.fakes import FakeClock
from tests.gateway.ledger.records import a_record, records


class FakeTable:
    """A usage table in memory: keeps each call once; is away, hangs or refuses when told."""

    def __init__(self) -> None:
        self.kept: dict[str, UsageRecord] = {}
        self.batches: list[int] = []
        self.is_away = False
        self.refuses: set[str] = set()
        self.answers = asyncio.Event()
        self.answers.set()
        self.changed = asyncio.Event()

    async def insert(self, records: Sequence[UsageRecord]) -> None:
        self.batches.append(len(records))
        self.changed.set()
        await self.answers.wait()
        if self.is_away:
            raise LedgerUnavailable
        if any(record.call_id in self.refuses for record in records):
            raise RecordRefused
        for record in records:
            self.kept.setdefault(record.call_id, record)
        self.changed.set()

    async def until(self, count: int) -> None:
        """Return when so many records are kept."""
        async with asyncio.timeout(30):
            while len(self.kept) < count:
                self.changed.clear()
                await self.changed.wait()


class Stage:
    def __init__(self, folder: Path) -> None:
        self.table = FakeTable()
        self.clock = FakeClock()
        self.spool = Spool(folder, max_bytes=10_000_000)

    def writer(self, **options: object) -> UsageWriter:
        chosen = {"gather_seconds": 0.001, "monotonic": self.clock, **options}
        return UsageWriter(self.table, self.spool, **chosen)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "usage-spool"


@pytest.fixture
async def stage(folder: Path) -> Stage:
    return Stage(folder)


async def until_spooled(writer: UsageWriter, count: int) -> None:
    async with asyncio.timeout(30):
        while writer.report().spooled < count:  # noqa: ASYNC110 - a thread writes it
            await asyncio.sleep(0)


async def test_records_are_written_in_batches(stage: Stage) -> None:
    async with stage.writer() as writer:
        for record in records(2 * BATCH + 10):
            writer.put(record)
        await stage.table.until(2 * BATCH + 10)

    assert stage.table.batches == [BATCH, BATCH, 10]
    assert (writer.report().written, writer.report().is_behind) == (2 * BATCH + 10, False)


async def test_what_is_left_at_the_end_is_written(stage: Stage) -> None:
    async with stage.writer(gather_seconds=60.0) as writer:
        writer.put(a_record())

    assert list(stage.table.kept) == ["req_1"]


async def test_a_database_that_is_away_puts_records_on_the_disk_and_then_back(
    stage: Stage, folder: Path
) -> None:
    stage.table.is_away = True
    async with stage.writer() as writer:
        for record in records(700):
            writer.put(record)
        await until_spooled(writer, 700)
        assert (writer.report().queued, writer.report().is_behind) == (0, True)

        stage.table.is_away = False
        stage.clock.advance(60)
        writer.put(a_record("req_last"))
        await stage.table.until(701)

    assert list(folder.iterdir()) == []
    assert set(stage.table.kept) == {"req_last", *(record.call_id for record in records(700))}


async def test_while_it_is_away_it_is_not_asked_for_every_batch(stage: Stage) -> None:
    stage.table.is_away = True
    async with stage.writer() as writer:
        for number in range(5):
            writer.put(a_record(f"req_{number}"))
            await until_spooled(writer, number + 1)

    assert len(stage.table.batches) == 1


async def test_records_gather_while_the_database_hangs_and_nobody_waits(stage: Stage) -> None:
    stage.table.answers.clear()
    async with stage.writer(max_queued=100) as writer:
        writer.put(a_record("req_first"))
        await stage.table.changed.wait()
        for record in records(150):
            writer.put(record)

        report = writer.report()
        assert (report.queued, report.dropped) == (100, 50)
        stage.table.answers.set()
        await stage.table.until(101)


async def test_drops_are_said_once_in_a_while_and_counted_always(stage: Stage) -> None:
    writer = stage.writer(max_queued=0)

    with capture_logs() as logs:
        for record in records(1500):
            writer.put(record)

    assert [entry["dropped"] for entry in logs] == [1, 1001]
    assert writer.report().dropped == 1500


async def test_a_full_disk_keeps_records_in_memory_until_one_of_the_two_is_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.table.is_away = True

    def fail(lines: Sequence[bytes]) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage.spool, "append", fail)
    async with stage.writer() as writer:
        writer.put(a_record("req_1"))
        await stage.table.changed.wait()
        stage.table.is_away = False
        stage.clock.advance(60)
        writer.put(a_record("req_2"))
        await stage.table.until(2)

    assert list(stage.table.kept) == ["req_1", "req_2"]
    assert writer.report().dropped == 0


async def test_a_full_spool_drops_and_counts(folder: Path) -> None:
    stage = Stage(folder)
    stage.spool = Spool(folder, max_bytes=1000)
    stage.table.is_away = True
    async with stage.writer() as writer:
        for record in records(10):
            writer.put(record)

    report = writer.report()
    assert report.spooled > 0
    assert report.spooled + report.dropped == 10


async def test_one_record_that_is_refused_does_not_hold_up_the_others(stage: Stage) -> None:
    stage.table.refuses = {"req_000003"}
    async with stage.writer() as writer:
        for record in records(6):
            writer.put(record)

    assert len(stage.table.kept) == 5
    assert writer.report().refused == 1


async def test_a_refused_record_on_the_disk_does_not_hold_up_the_others(stage: Stage) -> None:
    stage.table.is_away = True
    async with stage.writer() as writer:
        for record in records(6):
            writer.put(record)
    stage.table.is_away, stage.table.refuses = False, {"req_000003"}

    async with stage.writer():
        await stage.table.until(5)


async def test_what_a_dead_process_left_is_written_at_the_next_start(
    stage: Stage, folder: Path
) -> None:
    stage.table.is_away = True
    async with stage.writer() as writer:
        writer.put(a_record())
    assert len(list(folder.iterdir())) == 1
    stage.table.is_away = False

    async with stage.writer():
        await stage.table.until(1)

    assert list(folder.iterdir()) == []


async def test_a_line_that_cannot_be_read_is_told_and_passed_over(
    stage: Stage, folder: Path
) -> None:
    stage.table.is_away = True
    async with stage.writer() as writer:
        writer.put(a_record())
    [file] = folder.iterdir()
    file.write_bytes(b"{not json}\n" + file.read_bytes())
    stage.table.is_away = False

    with capture_logs() as logs:
        async with stage.writer():
            await stage.table.until(1)

    assert [e["event"] for e in logs if e["log_level"] == "error"] == ["usage_spool_unreadable"]


async def test_an_error_that_nobody_thought_of_loses_nothing(stage: Stage) -> None:
    broken = stage.table.insert

    async def insert(records: Sequence[UsageRecord]) -> None:
        stage.table.insert = broken  # type: ignore[method-assign]
        raise ZeroDivisionError

    stage.table.insert = insert  # type: ignore[method-assign]
    async with stage.writer() as writer:
        writer.put(a_record())
        async with asyncio.timeout(30):
            while writer.report().queued:
                writer.put(a_record())
                await asyncio.sleep(0)

    assert writer.report().dropped == 0
