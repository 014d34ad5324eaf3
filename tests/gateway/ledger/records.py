"""Usage records and audit entries as tests write them."""

from datetime import UTC, datetime

import msgspec

from gateway.ledger import AuditEntry, DoneBy, UsageRecord, new_entry

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_record(call_id: str = "req_1", **changes: object) -> UsageRecord:
    record = UsageRecord(
        call_id=call_id,
        at=NOON,
        team="search",
        key_id="k3v90q2mxw7a",
        principal="laptop",
        endpoint="openai.chat",
        model="chat-small",
        engine="gpu0",
        prompt_tokens=10,
        cached_tokens=4,
        completion_tokens=5,
        reasoning_tokens=1,
        first_output_seconds=0.25,
        seconds=1.5,
        streamed=True,
        status=200,
        policy="0123456789ab",
    )
    return msgspec.structs.replace(record, **changes)


def records(count: int, first: int = 0) -> list[UsageRecord]:
    return [a_record(f"req_{number:06}") for number in range(first, first + count)]


def an_entry(subject: str = "k1", action: str = "keys.create") -> AuditEntry:
    return new_entry(DoneBy(principal="me", role="admin"), action, subject, after={"team": "a"})
