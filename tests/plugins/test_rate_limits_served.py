"""Limits as clients see them: headers, bodies, streams, and the official SDK."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from engines.errors import Overloaded
from engines.protocol import GenerateRequest
from tests.fakes import Hold, ScriptedEngine, Step
from tests.plugins.shared_limits import kill
from tests.serving import Server, scripted_gateway, serving, write_policy

PLUGINS = """
    plugins = ["anonymous", "allow_lists", "defaults", "routing", "rate_limits"]
    [anonymous]
    team = "me"
"""
LIMITS = """
    [none]
    requests_per_minute = 60
    tokens_per_minute   = 600
    concurrent_calls    = 5
    tokens_per_day      = 3000
"""
BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "two words"}]}


class Served:
    """A limited gateway and what its engine says."""

    def __init__(self, server: Server, engine: ScriptedEngine, script: list[Step]) -> None:
        self.server = server
        self.engine = engine
        self.script = script
        self.url = f"{server.url}/v1"

    def post(self, **changes: object) -> httpx.Response:
        return httpx.post(f"{self.url}/chat/completions", json={**BODY, **changes}, timeout=60)

    def used(self, field: str) -> int:
        """Units taken of one limit."""

        def look() -> int:
            store = self.server.gateway.store
            level = store._states.get(f"none:{field}:team=me")  # type: ignore[attr-defined]
            return 0 if level is None else -(-level.level // 60_000)

        return self.server.run(look)

    def held(self) -> int:
        return self.server.run(lambda: self.server.gateway.store.num_held())  # type: ignore[attr-defined]


@pytest.fixture
def limits() -> str:
    return LIMITS


@pytest.fixture
def served(tmp_path: Path, limits: str) -> Iterator[Served]:
    directory = write_policy(tmp_path / "policy", {"gateway.toml": PLUGINS, "limits.toml": limits})
    script: list[Step] = ["hello", " there"]

    def play(request: GenerateRequest) -> list[Step]:
        return script

    engine = ScriptedEngine(play)
    gateway = scripted_gateway(directory, {"scripted": engine})
    with serving(gateway) as server:
        yield Served(server, engine, script)


def test_a_good_answer_says_how_much_is_left_as_openai_does(served: Served) -> None:
    answer = served.post(max_tokens=48)

    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-limit-requests"] == "60"
    assert answer.headers["x-ratelimit-remaining-requests"] == "59"
    assert answer.headers["x-ratelimit-reset-requests"] == "1s"
    assert answer.headers["x-ratelimit-limit-tokens"] == "600"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "550"
    assert answer.headers["x-ratelimit-reset-tokens"] == "5s"
    assert answer.headers["x-penstock-limit-tokens"] == "none.tokens_per_minute"


def test_the_head_of_a_stream_says_it_too(served: Served) -> None:
    with httpx.stream(
        "POST", f"{served.url}/chat/completions", json={**BODY, "stream": True, "max_tokens": 48}
    ) as answer:
        assert answer.headers["x-ratelimit-remaining-tokens"] == "550"
        assert answer.headers["content-type"].startswith("text/event-stream")
        answer.read()


@pytest.mark.parametrize("limits", ["[none]\nrequests_per_minute = 1\nburst_seconds = 60\n"])
def test_a_refusal_has_openais_shape_and_says_when_to_come_back(served: Served) -> None:
    served.post()
    answer = served.post()

    error = answer.json()["error"]
    assert answer.status_code == 429
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"], error["param"]) == (
        "rate_limit_error", "rate_limit_exceeded", None,
    )  # fmt: skip
    assert error["message"].startswith('requests_per_minute of team "me" (limits.toml [none])')
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= 60
    assert seconds * 1000 >= int(answer.headers["retry-after-ms"]) > (seconds - 1) * 1000
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert answer.headers["x-penstock-error-source"] == "gateway"


@pytest.mark.parametrize("limits", ["[none]\ntokens_per_month = 4\n"])
def test_the_official_client_does_not_try_again_when_a_budget_is_spent(served: Served) -> None:
    client = openai.OpenAI(base_url=served.url, api_key="unused")

    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(
            model="chat-small", messages=[{"role": "user", "content": "a b c"}], max_tokens=4
        )

    assert refused.value.code == "rate_limit_exceeded"  # it could never fit
    assert refused.value.response.headers["x-penstock-refused-by"] == "none.tokens_per_month"
    answer = client.chat.completions.create(
        model="chat-small", messages=[{"role": "user", "content": "a b"}], max_tokens=2
    )
    assert answer.choices[0].message.content == "hello there"
    began = len(served.engine.requests)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(
            model="chat-small", messages=[{"role": "user", "content": "a b"}], max_tokens=2
        )
    assert refused.value.code == "insufficient_quota"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(served.engine.requests) == began


@pytest.mark.parametrize("limits", ["[none]\nrequests_per_minute = 600\nburst_seconds = 0.1\n"])
def test_the_official_client_comes_back_when_it_is_told_to(served: Served) -> None:
    client = openai.OpenAI(base_url=served.url, api_key="unused", max_retries=5)

    for _ in range(4):  # one at once, and ten in a second
        client.chat.completions.create(**BODY)  # type: ignore[call-overload]

    assert len(served.engine.requests) == 4


def test_usage_and_limits_count_the_prompt_once_for_all_choices(served: Served) -> None:
    answer = served.post(n=3, max_tokens=10)

    usage = answer.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2, 6)
    assert 5 <= served.used("tokens_per_minute") <= 8


def test_embeddings_are_limited_too(served: Served) -> None:
    body = {"model": "chat-small", "input": ["one two three", "four"]}

    answer = httpx.post(f"{served.url}/embeddings", json=body)

    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-remaining-tokens"] == "596"


def test_a_client_that_hangs_up_pays_for_what_it_got_and_holds_nothing(served: Served) -> None:
    hold = Hold()
    served.script[:] = ["one", " two", " three", hold, " never"]
    with httpx.stream(
        "POST", f"{served.url}/chat/completions", json={**BODY, "stream": True, "max_tokens": 400}
    ) as answer:
        served.server.wait_until(hold.reached.is_set)
        assert served.held() == 1
        kill(answer.extensions["network_stream"].get_extra_info("socket"))
        served.server.wait_until(lambda: not served.server.gateway.calls)

    assert served.held() == 0
    assert served.used("tokens_per_minute") <= 5


def test_an_engine_that_fails_before_its_first_output_costs_nothing(served: Served) -> None:
    served.script[:] = [Overloaded("full", retry_after=1)]

    assert served.post(max_tokens=100).status_code == 503

    assert served.used("tokens_per_minute") == 0
    assert served.used("requests_per_minute") == 0


def test_an_engine_that_fails_in_mid_stream_is_paid_for_what_it_sent(served: Served) -> None:
    served.script[:] = ["one", " two", Overloaded("gone")]

    answer = served.post(stream=True, max_tokens=100)

    assert "server_is_overloaded" in answer.text
    assert served.held() == 0
    assert 1 <= served.used("tokens_per_minute") <= 4


@pytest.mark.parametrize("limits", ["[none]\nconcurrent_calls = 1\nwait_seconds = 30\n"])
def test_a_client_waits_for_room_where_the_policy_says_so(served: Served) -> None:
    hold = Hold()
    served.script[:] = ["one", hold]
    gateway = served.server.gateway
    lines = gateway.hooks._manager.get_plugin("rate_limits")._lines
    with (
        ThreadPoolExecutor(1) as pool,
        httpx.stream(
            "POST", f"{served.url}/chat/completions", json={**BODY, "stream": True}
        ) as first,
    ):
        served.server.wait_until(hold.reached.is_set)
        served.script[:] = ["second"]
        second = pool.submit(served.post)
        served.server.wait_until(lambda: lines.num_waiting == 1)
        served.server.run(hold.release)
        first.read()

    assert second.result().json()["choices"][0]["message"]["content"] == "second"


def test_a_model_that_is_unknown_costs_nothing(served: Served) -> None:
    answer = served.post(model="nowhere")

    assert answer.status_code == 404
    assert served.used("requests_per_minute") == 0
    assert "x-ratelimit-limit-requests" not in answer.headers
