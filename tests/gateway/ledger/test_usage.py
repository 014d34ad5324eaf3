import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.ledger import GROUPS, Ledger, RecordRefused, UsageQuery, open_ledger
from gateway.ledger.spool import Spool
from gateway.ledger.writer import UsageWriter
from tests.gateway.ledger.records import NOON, a_record, records


async def total_of(ledger: Ledger, **query: object) -> dict[tuple[str | None, ...], int]:
    totals = await ledger.usage.totals(UsageQuery(**query))  # type: ignore[arg-type]
    return {tuple(total.group.values()): total.calls for total in totals}


async def test_a_record_comes_back_as_it_went_in(either_ledger: Ledger) -> None:
    whole = a_record("req_1", cost_micros=12)
    bare = a_record(
        "req_0", key_id=None, model=None, engine=None, first_output_seconds=None, status=None
    )

    await either_ledger.usage.insert([whole, bare])

    assert await either_ledger.usage.calls(UsageQuery()) == [whole, bare]


async def test_a_record_is_kept_once_however_often_it_is_written(either_ledger: Ledger) -> None:
    await either_ledger.usage.insert([a_record("req_1"), a_record("req_2")])

    await either_ledger.usage.insert([a_record("req_2", team="other"), a_record("req_3")])

    assert await total_of(either_ledger, by=["team"]) == {("search",): 3}


async def test_sums_add_up_tokens_costs_and_failures(either_ledger: Ledger) -> None:
    await either_ledger.usage.insert(
        [
            a_record("req_1", cost_micros=5),
            a_record("req_2", cost_micros=2**40, outcome="overloaded"),
            a_record("req_3", cost_micros=None, prompt_tokens=2**40),
        ]
    )

    [total] = await either_ledger.usage.totals(UsageQuery())

    assert (total.group, total.calls, total.failed) == ({}, 3, 1)
    assert (total.prompt_tokens, total.cached_tokens) == (2**40 + 20, 12)
    assert (total.completion_tokens, total.reasoning_tokens) == (15, 3)
    assert total.cost_micros == 2**40 + 5
    assert all(isinstance(value, int) for value in (total.prompt_tokens, total.cost_micros))


@pytest.mark.parametrize(
    "changes",
    [{"completion_tokens": 2**63}, {"cost_micros": -(2**70)}, {"at": datetime.max}],
    ids=str,
)
async def test_what_a_database_can_never_keep_is_refused_and_not_tried_again(
    either_ledger: Ledger, changes: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(RecordRefused):
        await either_ledger.usage.insert([a_record("req_bad", **changes)])

    spool = Spool(tmp_path / "usage-spool", max_bytes=100_000)
    with capture_logs() as logs:
        async with UsageWriter(either_ledger.usage, spool, gather_seconds=0) as writer:
            for record in (a_record("req_1"), a_record("req_bad", **changes), a_record("req_2")):
                writer.put(record)

    assert (writer.report().written, writer.report().refused) == (2, 1)
    assert await total_of(either_ledger, by=["call"]) == {("req_1",): 1, ("req_2",): 1}
    [told] = [entry for entry in logs if entry["event"] == "usage_refused"]
    assert (told["call"], told["record"]["prompt_tokens"]) == ("req_bad", 10)


async def test_what_has_no_price_has_no_cost(either_ledger: Ledger) -> None:
    await either_ledger.usage.insert([a_record()])

    [total] = await either_ledger.usage.totals(UsageQuery())

    assert total.cost_micros is None


async def test_nothing_at_all_is_a_sum_of_nothing(either_ledger: Ledger) -> None:
    [total] = await either_ledger.usage.totals(UsageQuery())

    assert (total.calls, total.failed, total.prompt_tokens, total.cost_micros) == (0, 0, 0, None)
    assert await either_ledger.usage.totals(UsageQuery(by=["team"])) == []


async def test_days_are_those_of_utc(either_ledger: Ledger) -> None:
    midnight = NOON + timedelta(hours=12)
    await either_ledger.usage.insert(
        [
            a_record("req_1", at=midnight - timedelta(microseconds=1)),
            a_record("req_2", at=midnight),
        ]
    )

    assert await total_of(either_ledger, by=["day"]) == {("2026-03-01",): 1, ("2026-03-02",): 1}


@pytest.mark.parametrize("group", [name for name in GROUPS if name not in ("call", "day")])
async def test_every_group_sums_and_narrows(either_ledger: Ledger, group: str) -> None:
    field = "key_id" if group == "key" else group
    await either_ledger.usage.insert(
        [a_record("req_1", **{field: "one"}), a_record("req_2", **{field: "two"})]
    )

    assert await total_of(either_ledger, by=[group]) == {("one",): 1, ("two",): 1}
    assert await total_of(either_ledger, by=[group], only={group: "two"}) == {("two",): 1}


async def test_groups_without_a_value_come_first_on_every_database(either_ledger: Ledger) -> None:
    await either_ledger.usage.insert(
        [a_record("req_1", model="b"), a_record("req_2", model=None), a_record("req_3", model="a")]
    )

    totals = await either_ledger.usage.totals(UsageQuery(by=["model", "team"]))

    assert [total.group["model"] for total in totals] == [None, "a", "b"]


async def test_from_is_included_and_to_is_not(either_ledger: Ledger) -> None:
    hour = timedelta(hours=1)
    await either_ledger.usage.insert([a_record(f"req_{n}", at=NOON + n * hour) for n in range(4)])

    found = await either_ledger.usage.calls(UsageQuery(since=NOON + hour, until=NOON + 3 * hour))

    assert [record.call_id for record in found] == ["req_2", "req_1"]


async def test_pages_follow_each_other_without_gap_or_repeat(either_ledger: Ledger) -> None:
    await either_ledger.usage.insert(records(7))

    pages = [
        await either_ledger.usage.calls(UsageQuery(limit=3, offset=offset)) for offset in (0, 3, 6)
    ]

    assert [len(page) for page in pages] == [3, 3, 1]
    assert len({record.call_id for page in pages for record in page}) == 7


@pytest.mark.parametrize("name", ["nul\0nul", "\ud800", "x" * 5000, "'; DROP TABLE usage_records"])
async def test_a_callers_choice_of_name_never_breaks_a_batch(
    either_ledger: Ledger, name: str
) -> None:
    await either_ledger.usage.insert([a_record("req_1", model=name), a_record("req_2")])

    assert sum((await total_of(either_ledger, by=["model"])).values()) == 2


async def test_processes_that_write_the_same_records_keep_each_once(ledger_url: str) -> None:
    async def write() -> None:
        async with open_ledger(ledger_url) as ledger:
            for first in range(0, 60, 10):
                await ledger.usage.insert(records(20, first))

    await asyncio.gather(*(write() for _ in range(3)))

    async with open_ledger(ledger_url) as ledger:
        assert await total_of(ledger, by=["team"]) == {("search",): 70}
