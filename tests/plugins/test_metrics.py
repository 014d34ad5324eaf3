from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from engines.errors import Overloaded
from engines.gguf.config import GgufConfig
from engines.gguf.engine import GgufEngine
from engines.paged.config import PagedConfig
from engines.paged.engine import PagedEngine
from engines.protocol import Engine
from gateway import Call, Principal, hookimpl
from gateway.hooks import Hooks
from plugins.allow_lists import AllowLists
from plugins.anonymous import Anonymous
from plugins.defaults import Defaults
from plugins.metrics import Metrics
from plugins.routing import Routing
from tests.fakes import Hold, ScriptedEngine
from tests.gateway.metrics.observed import value
from tests.serving import SCRIPTED_POLICY, Server, scripted_gateway, serving, write_policy

PLUGINS = 'plugins = ["metrics", "anonymous", "allow_lists", "defaults", "routing"]'
TEAM = '[anonymous]\nteam = "me"'
TEAMS = "\n".join(
    f'[{team}]\nmodels = ["*"]\nendpoints = ["*"]\nlimits = "none"'
    for team in ("me", "monitoring", "search")
)
BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hello you"}]}
FORWARDED = {"x-forwarded-for": "203.0.113.9"}  # so it is not from this machine


class Introduced:
    """Takes callers at their word: `x-team`, and `x-role` if they have one."""

    @hookimpl
    async def identify(self, call: Call, headers: Mapping[str, str]) -> Principal | None:
        team = headers.get("x-team")
        if team is None:
            return None
        return Principal(name="somebody", team=team, role=headers.get("x-role", "member"))


@contextmanager
def metered(
    directory: Path,
    *engines: Engine,
    table: str = "",
    policy: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A gateway with the plugin; `table` is what `[metrics]` says."""
    files = {"gateway.toml": f"{PLUGINS}\n{TEAM}\n{table}", "teams.toml": TEAMS, **(policy or {})}
    served = {engine.name: engine for engine in engines or (ScriptedEngine(),)}
    gateway = scripted_gateway(write_policy(directory / "policy", files), served)
    gateway.hooks = Hooks(
        [
            ("metrics", Metrics(gateway)),
            ("introduced", Introduced()),
            ("anonymous", Anonymous()),
            ("allow_lists", AllowLists()),
            ("defaults", Defaults()),
            ("routing", Routing(gateway)),
        ]
    )
    with serving(gateway) as server:
        yield server


def scrape(server: Server, **headers: str) -> str:
    """What there is to read once all calls before are counted."""
    server.wait_until(lambda: not server.gateway.calls)
    reply = httpx.get(f"{server.url}/metrics", headers=headers, timeout=30)
    assert reply.status_code == 200, reply.text
    return reply.text


def ask(server: Server, headers: Mapping[str, str] | None = None, **fields: object) -> int:
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, json=BODY | fields, headers=headers, timeout=30).status_code


def test_a_call_is_counted_with_its_time_and_tokens(tmp_path: Path) -> None:
    with metered(tmp_path) as server:
        statuses = [ask(server), ask(server, stream=True), ask(server, model="nothing")]
        text = scrape(server)

    where = {"endpoint": "openai.chat", "model": "chat-small", "engine": "scripted"}
    refused = {"endpoint": "openai.chat", "model": "-", "engine": "-"}
    assert statuses == [200, 200, 404]
    assert value(text, "penstock_calls_total", **where, team="me", outcome="ok") == 2
    assert value(text, "penstock_calls_total", **refused, outcome="model_unknown") == 1
    assert value(text, "penstock_call_seconds_count", **where) == 2
    assert value(text, "penstock_first_output_seconds_count", **where) == 2
    assert value(text, "penstock_admission_seconds_count", endpoint="openai.chat") == 3
    assert value(text, "penstock_tokens_total", direction="prompt", model="chat-small") == 4
    assert value(text, "penstock_tokens_total", direction="completion", model="chat-small") == 4
    assert value(text, "penstock_engine_ready", engine="scripted", kind="scripted") == 1
    assert value(text, "penstock_ready") == 1


def test_an_engine_that_fails_is_seen_though_the_client_sees_another_answer(
    tmp_path: Path,
) -> None:
    policy = {
        "engines.toml": '[scripted]\nkind = "scripted"\n[spare]\nkind = "scripted"',
        "models.toml": SCRIPTED_POLICY["models.toml"]
        + '\n[[chat-small.fallbacks]]\nengine = "spare"\nmodel = "scripted-model"\n',
    }
    engines = (ScriptedEngine([Overloaded("full")]), ScriptedEngine(name="spare"))
    with metered(tmp_path, *engines, policy=policy) as server:
        assert ask(server) == 200
        text = scrape(server)

    assert value(text, "penstock_targets_left_total", engine="scripted", why="overloaded") == 1
    assert value(text, "penstock_target_attempts_total", engine="spare", result="answered") == 1
    assert value(text, "penstock_calls_total", engine="spare", outcome="ok") == 1


def test_a_client_that_hangs_up_is_an_outcome_and_no_call_in_flight(tmp_path: Path) -> None:
    hold = Hold()
    with metered(tmp_path, ScriptedEngine(["one", hold, "two"])) as server:
        url = f"{server.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=BODY | {"stream": True}, timeout=30) as reply:
            lines = reply.iter_lines()
            assert next(lines)
            during = httpx.get(f"{server.url}/metrics", timeout=30).text
        after = scrape(server)

    assert value(during, "penstock_calls_in_flight", endpoint="openai.chat") == 1
    assert value(after, "penstock_calls_in_flight", endpoint="openai.chat") is None
    assert value(after, "penstock_calls_total", outcome="client_closed") == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-team": "search"}, 403),
        ({"x-team": "me"}, 403),  # that it may call every endpoint is not enough
        ({"x-team": "nobody", "x-role": "admin"}, 200),
        ({"x-team": "monitoring"}, 200),
    ],
)
def test_from_elsewhere_administrators_and_readers_may_read(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    with metered(tmp_path, table='[metrics]\nreaders = ["monitoring"]') as server:
        reply = httpx.get(f"{server.url}/metrics", headers=FORWARDED | headers)

    assert reply.status_code == status
    assert ("penstock_calls_in_flight" in reply.text) is (status == 200)


@pytest.mark.parametrize(
    "headers",
    [
        FORWARDED,
        {"host": "rebound.example.com"},
        {"origin": "https://elsewhere.example.com"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_what_only_looks_like_this_machine_reads_nothing(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    with metered(tmp_path) as server:
        reply = httpx.get(f"{server.url}/metrics", headers=headers)

    assert reply.status_code == 401
    assert "penstock_" not in reply.text


def test_where_everybody_may_read_no_team_is_named(tmp_path: Path) -> None:
    with metered(tmp_path, table="[metrics]\npublic = true") as server:
        ask(server, {"x-team": "search"})
        text = scrape(server, **FORWARDED)

    assert value(text, "penstock_calls_total", endpoint="openai.chat", outcome="ok", team="-") == 1
    assert "search" not in text
    assert '"me"' not in text


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("", True),
        ("[metrics]\nteams = false", False),
        ("[metrics]\npublic = true\nteams = true", True),
    ],
)
def test_teams_are_named_as_the_policy_says(tmp_path: Path, table: str, named: bool) -> None:
    with metered(tmp_path, table=table) as server:
        ask(server, {"x-team": "search"})
        text = scrape(server)

    assert ('team="search"' in text) is named


def test_reading_is_a_call_of_its_own_name(tmp_path: Path) -> None:
    with metered(tmp_path) as server:
        first = scrape(server)
        second = scrape(server)

    assert value(first, "penstock_calls_in_flight", endpoint="metrics") == 1
    assert value(second, "penstock_calls_total", endpoint="metrics", outcome="ok") == 1


def test_the_event_loop_is_watched_while_the_gateway_runs(tmp_path: Path) -> None:
    with metered(tmp_path) as server:
        before = value(scrape(server), "penstock_event_loop_lag_seconds_count")
        while value(scrape(server), "penstock_event_loop_lag_seconds_count") == before:
            pass  # the test's own time limit ends it


def gguf(directory: Path) -> Engine:
    config = GgufConfig(num_threads=1, num_slots=2)
    return GgufEngine("scripted", config, models_dir=directory, data_dir=directory)


def paged(directory: Path) -> Engine:
    return PagedEngine("scripted", PagedConfig(num_threads=1, max_sequences=2))


@pytest.fixture(scope="module", params=[gguf, paged], ids=["gguf", "paged"])
def starter(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The starter model behind a gateway, run by each local engine."""
    directory = tmp_path_factory.mktemp("starter")
    engine = request.param(directory)
    models = SCRIPTED_POLICY["models.toml"].replace("scripted-model", "starter")
    with metered(directory, engine, policy={"models.toml": models}) as server:
        yield server


def test_the_starter_model_tells_what_vllm_would_tell(starter: Server) -> None:
    before = scrape(starter)
    url = f"{starter.url}/v1/chat/completions"
    with httpx.Client(timeout=60) as client:
        # Long enough to fill a block of a paged cache.
        asked = [
            {"role": "user", "content": "Count from 1 to 20, and then back to 1 again, please."}
        ]
        fields = {"max_tokens": 10, "ignore_eos": True, "temperature": 0, "messages": asked}
        usages = [client.post(url, json=BODY | fields).json()["usage"] for _ in range(10)]
    text = scrape(starter)

    def more(name: str, **labels: str) -> float:
        labels |= {"engine": "scripted"}
        return (value(text, name, **labels) or 0) - (value(before, name, **labels) or 0)

    prompt = usages[0]["prompt_tokens"]
    assert {usage["completion_tokens"] for usage in usages} == {10}
    assert more("vllm:iteration_tokens_total_sum") == 10 * (prompt + 10)
    assert more("vllm:iteration_tokens_total_count") == 100
    assert more("vllm:request_success_total", finished_reason="length") == 10
    assert more("vllm:prompt_tokens_total") == 10 * prompt
    assert more("vllm:generation_tokens_total") == 100
    assert more("vllm:prefix_cache_hits_total") > 0
    assert more("vllm:time_to_first_token_seconds_count") == 10
    assert more("vllm:inter_token_latency_seconds_count") == 90
    assert more("vllm:e2e_request_latency_seconds_count") == 10
    assert more("penstock_tokens_total", direction="completion") == 100


def test_after_a_hang_up_nothing_runs_nothing_waits_and_no_cache_is_in_use(
    starter: Server,
) -> None:
    url = f"{starter.url}/v1/chat/completions"
    endless = BODY | {"stream": True, "ignore_eos": True, "max_tokens": 4000}
    with httpx.stream("POST", url, json=endless, timeout=60) as reply:
        lines = reply.iter_lines()
        assert next(lines)
        during = httpx.get(f"{starter.url}/metrics", timeout=30).text

    def gauges(text: str) -> list[float | None]:
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return [value(text, f"vllm:{name}", model_name="starter") for name in names]

    assert gauges(during)[0] == 1
    assert (gauges(during)[2] or 0) > 0
    while gauges(text := scrape(starter)) != [0, 0, 0]:
        pass
    assert value(text, "vllm:request_success_total", finished_reason="abort") == 1
