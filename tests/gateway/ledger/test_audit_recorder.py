import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.errors import LedgerUnavailable
from gateway.ledger import AuditEntry, AuditRow
from gateway.ledger.audit_recorder import AuditRecorder
from gateway.ledger.spool import Spool
from tests.gateway.ledger.records import an_entry


class FakeAudit:
    """An audit log in memory that is away when told."""

    def __init__(self) -> None:
        self.entries: dict[str, AuditEntry] = {}
        self.is_away = False
        self.changed = asyncio.Event()

    async def append(self, entry: AuditEntry) -> AuditRow:
        if self.is_away:
            raise LedgerUnavailable
        self.entries.setdefault(entry.id, entry)
        self.changed.set()
        return AuditRow(seq=len(self.entries), entry=entry, previous="", hash="")

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.entries) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit-spool"


async def test_an_entry_is_in_the_log_when_record_returns() -> None:
    audit, entry = FakeAudit(), an_entry()

    await AuditRecorder(audit, Spool(Path("nowhere"), max_bytes=1)).record(entry)

    assert audit.entries == {entry.id: entry}


async def test_entries_made_while_the_database_is_away_come_in_later_in_order(
    folder: Path,
) -> None:
    audit, entries = FakeAudit(), [an_entry(f"k{number}") for number in range(3)]
    audit.is_away = True
    recorder = AuditRecorder(audit, Spool(folder, max_bytes=10_000), retry_seconds=0.01)
    async with recorder:
        for entry in entries:
            await recorder.record(entry)
        assert audit.entries == {}

        audit.is_away = False
        await audit.until(3)

    assert list(audit.entries.values()) == entries


async def test_entries_outlive_the_process(folder: Path) -> None:
    audit, entry = FakeAudit(), an_entry()
    audit.is_away = True
    async with AuditRecorder(audit, Spool(folder, max_bytes=10_000)) as recorder:
        await recorder.record(entry)
    audit.is_away = False

    async with AuditRecorder(audit, Spool(folder, max_bytes=10_000)):
        await audit.until(1)

    assert list(audit.entries.values()) == [entry]


@pytest.mark.parametrize("trouble", ["full", "broken"])
async def test_what_nothing_can_keep_is_refused(
    folder: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = FakeAudit()
    audit.is_away = True
    if trouble == "broken":
        folder.write_text("a file in the folder's place")
    recorder = AuditRecorder(audit, Spool(folder, max_bytes=5 if trouble == "full" else 10_000))

    with capture_logs(), pytest.raises(LedgerUnavailable):
        await recorder.record(an_entry())
