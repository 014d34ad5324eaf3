"""An upstream that tells counts nobody can have used: what they do to budgets and to the ledger."""

from collections.abc import Iterator

import httpx
import pytest

from engines.remote.tokens import MAX_COUNT
from tests.api.remote_stage import POLICY, RemoteStage, remote_stage
from tests.redis_server import redis_server
from tests.upstream import CHAT, answering

FILES = {
    "gateway.toml": """
        plugins = [
            "anonymous", "allow_lists", "defaults", "routing", "rate_limits", "remote_engine",
            "usage",
        ]
        [anonymous]
        team = "me"
    """,
    "models.toml": POLICY["models.toml"],
    "limits.toml": """
        [none]
        concurrent_calls = 1
        tokens_per_minute = 1_000_000
        cost_per_month = 1.501
    """,
    "prices.toml": """
        ["*"]
        input = 3
        cached = 0.3
        output = 15
    """,
}


@pytest.fixture(params=["memory", "redis"])
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteStage]:
    directory = tmp_path_factory.mktemp("counts")
    if request.param == "memory":
        with remote_stage(directory, FILES) as stage:
            yield stage
        return
    with (
        redis_server() as redis,
        remote_stage(directory, FILES, store=f"{redis.url}?timeout_seconds=10") as stage,
    ):
        yield stage


def told(stage: RemoteStage, usage: dict[str, object]) -> httpx.Response:
    """Ask once; the upstream tells this usage."""
    stage.upstream.scene = answering(CHAT | {"usage": usage})
    return stage.chat(max_tokens=10)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 3, "completion_tokens": 2**63},
        {"prompt_tokens": 2**70, "completion_tokens": 2},
        {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2**64}},
    ],
    ids=str,
)
def test_what_nobody_can_have_used_neither_is_charged_nor_stops_anything(
    stage: RemoteStage, usage: dict[str, object]
) -> None:
    assert told(stage, usage).status_code == 200

    # The only lease is back, and so is what was reserved.
    answer = told(stage, {"prompt_tokens": 3, "completion_tokens": 2})

    assert answer.status_code == 200, answer.text
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 999_900
    records = stage.server.gateway.usage
    stage.server.wait_until(lambda: records.report().written == 2)
    assert records.report().refused == 0


def test_the_most_that_is_believed_is_charged_and_recorded(stage: RemoteStage) -> None:
    most = {"prompt_tokens": MAX_COUNT, "completion_tokens": MAX_COUNT}
    assert told(stage, most).status_code == 200

    answer = told(stage, most)

    assert answer.status_code == 429, answer.text
    assert "cost_per_month" in answer.json()["error"]["message"]
    records = stage.server.gateway.usage
    stage.server.wait_until(lambda: records.report().written == 2)


def test_more_cached_tokens_than_there_are_in_the_prompt_refund_nobodys_money(
    stage: RemoteStage,
) -> None:
    spend = {"prompt_tokens": 3, "completion_tokens": 100_000}
    assert told(stage, spend).status_code == 200  # 1.5 of 1.501
    refund = {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 100_000}}
    assert told(stage, refund).status_code == 200

    answer = stage.chat(max_tokens=100)

    assert answer.status_code == 429, answer.text
    assert "cost_per_month" in answer.json()["error"]["message"]
