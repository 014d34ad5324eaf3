"""What is reserved for a request that is passed on, when it asks for more than one answer."""

from collections.abc import Iterator

import httpx
import pytest

from tests.api.remote_stage import RemoteStage, remote_stage
from tests.upstream import CHAT, answering

FILES = {
    "gateway.toml": """
        plugins = [
            "anonymous", "allow_lists", "defaults", "routing", "rate_limits", "remote_engine"
        ]
        [anonymous]
        team = "me"
    """,
    "limits.toml": """
        [none]
        output_tokens_per_minute = 1000
        input_tokens_per_minute = 1000
    """,
}
TEXT = {"model": "upstream-model", "choices": [{"text": "x", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}}  # fmt: skip


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteStage]:
    with remote_stage(tmp_path_factory.mktemp("relayed"), FILES) as stage:
        yield stage


def complete(stage: RemoteStage, **fields: object) -> httpx.Response:
    body = {"model": "patient-model", "prompt": "hi", **fields}
    return stage.client.post("/v1/completions", json=body)


def refused_by(answer: httpx.Response) -> str:
    assert answer.status_code == 429, answer.text
    return answer.headers["x-should-retry"] + " " + answer.json()["error"]["message"]


def test_each_of_n_answers_is_reserved_and_what_was_not_used_given_back(
    stage: RemoteStage,
) -> None:
    stage.upstream.scene = answering(CHAT)

    whole = stage.chat(n=3, max_tokens=333)
    refused = stage.chat(n=4, max_tokens=333)

    assert whole.status_code == 200  # 999 of 1,000
    # Two were used, and the rest is there again.
    assert int(whole.headers["x-ratelimit-remaining-tokens"]) == 1
    assert stage.chat(n=2, max_tokens=333).status_code == 200
    assert "false" in refused_by(refused)
    assert len(stage.upstream.requests) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 4},
        {"best_of": 4},
        {"best_of": 4, "n": 2},
        {"prompt": ["a", "b", "c", "d"]},
        {"prompt": ["a", "b"], "n": 2},
        {"prompt": [[1, 2], [3], [4], [5]]},
    ],
    ids=str,
)
def test_four_answers_are_four_however_they_are_asked_for(
    stage: RemoteStage, fields: dict[str, object]
) -> None:
    stage.upstream.scene = answering(TEXT)

    assert complete(stage, max_tokens=250, **fields).status_code == 200
    assert "false" in refused_by(complete(stage, max_tokens=251, **fields))


@pytest.mark.parametrize(
    "prompt", [list(range(1001)), [[7] * 500, [8] * 501], "word " * 700, ["word " * 350] * 2]
)
def test_a_prompt_in_tokens_is_counted_as_one_in_text_is(
    stage: RemoteStage, prompt: object
) -> None:
    assert "false" in refused_by(complete(stage, prompt=prompt, max_tokens=1))
    assert stage.upstream.requests == []
