from datetime import UTC, datetime

import pytest

from gateway.keys.last_use import LastUse
from gateway.ledger import ApiKey
from tests.fakes import FakeLedger

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_ledger(*ids: str) -> FakeLedger:
    ledger = FakeLedger()
    for key_id in ids:
        ledger.records[key_id] = ApiKey(
            id=key_id, team="me", name="x", created_at=NOON, digest=bytes(32), pepper_version="p"
        )
    return ledger


async def test_uses_are_written_in_one_batch_when_it_ends() -> None:
    ledger = a_ledger("one", "two")
    last_use = LastUse(ledger)
    last_use.note("one", NOON, previous=False)
    last_use.note("two", NOON, previous=True)
    assert ledger.records["one"].last_used_at is None

    await last_use.close()

    assert ledger.records["one"].last_used_at == NOON
    assert ledger.records["two"].last_used_at is None
    assert ledger.records["two"].previous_used_at == NOON


async def test_uses_are_kept_while_the_ledger_is_down() -> None:
    ledger = a_ledger("one")
    last_use = LastUse(ledger)
    last_use.note("one", NOON, previous=False)
    ledger.is_down = True
    await last_use.flush()
    ledger.is_down = False

    await last_use.close()

    assert ledger.records["one"].last_used_at == NOON


async def test_no_outage_is_long_enough_to_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.keys.last_use.MAX_NOTED", 3)
    ledger = a_ledger("a", "b", "c", "d", "e")
    last_use = LastUse(ledger)
    for key_id in "abcde":
        last_use.note(key_id, NOON, previous=False)

    await last_use.close()

    used = [key.id for key in ledger.records.values() if key.last_used_at is not None]
    assert used == ["c", "d", "e"]
