from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from engines.protocol import Usage as Tokens
from gateway import Call, Principal, Target
from gateway.errors import Unauthenticated, problem_of
from gateway.ledger import UsageRecord
from gateway.policy import PricePolicy
from plugins.usage import Usage, record_of
from tests.plugins.policies import call_of, policy_of


class Taken:
    """What stands in for `gateway.usage`."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []

    def put(self, record: UsageRecord) -> None:
        self.records.append(record)


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def plugin(taken: Taken) -> Usage:
    return Usage(cast(Any, SimpleNamespace(usage=taken)))


def a_call(price: PricePolicy | None = None) -> Call:
    policy = policy_of()
    if price is not None:
        policy = msgspec.structs.replace(policy, prices={"chat-*": price})
    call = call_of(policy, key_id="k3v90q2mxw7a")
    call.target = Target("gpu0", "a")
    call.tally(0).set(
        Tokens(prompt_tokens=100, cached_tokens=40, completion_tokens=7, reasoning_tokens=3)
    )
    call.started_at, call.first_output_at, call.finished_at = 10.0, 10.25, 11.5
    call.began_at = 1_772_366_400.5
    call.status = 200
    return call


async def test_a_call_that_ended_is_one_record(plugin: Usage, taken: Taken) -> None:
    async with plugin.observe(a_call()):
        assert taken.records == []

    [record] = taken.records
    assert (record.call_id, record.team, record.key_id) == ("req_1", "search", "k3v90q2mxw7a")
    assert (record.model, record.engine, record.endpoint) == ("chat-small", "gpu0", "openai.chat")
    assert (record.prompt_tokens, record.cached_tokens) == (100, 40)
    assert (record.completion_tokens, record.reasoning_tokens) == (7, 3)
    assert (record.first_output_seconds, record.seconds) == (0.25, 1.5)
    assert record.at.isoformat() == "2026-03-01T12:00:00.500000+00:00"
    assert (record.status, record.outcome, record.policy) == (200, "ok", "0" * 12)


async def test_a_call_that_broke_is_recorded_with_what_it_used(plugin: Usage, taken: Taken) -> None:
    call = a_call()

    with pytest.raises(RuntimeError):
        async with plugin.observe(call):
            call.error = problem_of(RuntimeError())
            raise RuntimeError

    [record] = taken.records
    assert (record.outcome, record.prompt_tokens) == ("internal", 100)


@pytest.mark.parametrize("endpoint", ["admin.keys", "health.live", "-"])
async def test_what_nobody_is_billed_for_is_not_recorded(
    plugin: Usage, taken: Taken, endpoint: str
) -> None:
    call = a_call()
    call.endpoint = endpoint

    async with plugin.observe(call):
        pass

    assert taken.records == []


async def test_whoever_was_never_known_cannot_fill_the_ledger(plugin: Usage, taken: Taken) -> None:
    call = Call(id="req_1", endpoint="openai.chat", policy=policy_of())
    call.error = problem_of(Unauthenticated("no"))

    async with plugin.observe(call):
        pass
    call.principal = Principal(name="-", team="-")  # known, and called so
    async with plugin.observe(call):
        pass

    assert len(taken.records) == 1


@pytest.mark.parametrize(
    ("price", "micros"),
    [
        (None, None),
        (PricePolicy(input=1.0), 100),
        (PricePolicy(input=1.0, output=2.0), 114),
        (PricePolicy(input=1.0, cached=0.5), 80),
        (PricePolicy(input=1.0, cached=0.0), 60),
        (PricePolicy(input=0.001), 1),  # rounded up: what costs something is never free
        (PricePolicy(input=0.0), 0),
        (PricePolicy(input=0.1, output=0.7), 15),  # exactly 14.9
    ],
)
def test_a_cost_is_in_whole_millionths(price: PricePolicy | None, micros: int | None) -> None:
    assert record_of(a_call(price)).cost_micros == micros


def test_a_name_that_a_caller_made_up_is_recorded_as_its_own() -> None:
    call = a_call()
    call.model = None

    assert (record_of(call).model, record_of(call).cost_micros) == (None, None)
