"""`penstock bench`, as a user types it, against a served gateway and an engine in-process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engines.errors import EngineOverloaded
from engines.protocol import GenerateRequest
from gateway.bench.workloads.nano import OUTPUT_TOKENS, PROMPT_TOKENS
from gateway.cli import main
from tests.fakes import ScriptedEngine, Step
from tests.serving import Server, scripted_gateway, serving, write_policy

SCRIPT: list[Step] = []


def steps(request: GenerateRequest) -> list[Step]:
    """The script; without one, as many words as were asked for."""
    return SCRIPT or [" word"] * (request.max_tokens or 3)


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(steps, context_tokens=5_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine: ScriptedEngine) -> Iterator[Server]:
    directory = write_policy(tmp_path_factory.mktemp("bench") / "policy")
    with serving(scripted_gateway(directory, {"scripted": engine})) as running:
        yield running


@pytest.fixture(autouse=True)
def script() -> Iterator[list[Step]]:
    yield SCRIPT
    SCRIPT.clear()


def bench(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", "chat-small", *words])


def measured(*words: str) -> dict[str, Any]:
    result = bench(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_every_level_is_measured_and_its_tokens_counted(server: Server) -> None:
    document = measured(
        "--url", server.url, "--at-once", "1,3", "--requests", "6", "--rounds", "2",
        "--max-tokens", "5",
    )  # fmt: skip

    assert [(row["at_once"], row["answers"], row["failures"]) for row in document["rows"]] == [
        (1, 6, 0),
        (3, 6, 0),
    ]
    assert all(row["output_tokens"] == 30 for row in document["rows"])
    assert all(row["tokens_per_second"] > 0 for row in document["rows"])
    assert len(document["rounds"]) == 4
    assert document["about"]["model"] == "chat-small"


def test_the_nano_workload_arrives_to_the_token(server: Server, engine: ScriptedEngine) -> None:
    engine.requests.clear()

    # Two pieces for each answer, and the usage of all tokens: a test is no benchmark.
    document = measured("--url", server.url, "--workload", "nano", "--rounds", "1",
                        "--warmup", "0", "--extra", '{"max_tokens": 2}')  # fmt: skip

    [row] = document["rows"]
    assert row["answers"] == 256
    assert row["prompt_tokens"] == PROMPT_TOKENS
    assert row["expected_tokens"] == OUTPUT_TOKENS
    assert all(request.sampling.ignore_eos for request in engine.requests)
    assert all(request.sampling.temperature == 0.6 for request in engine.requests)
    assert sum(len(request.prompt or ()) for request in engine.requests) == PROMPT_TOKENS


def test_rates_measure_an_open_loop(server: Server) -> None:
    document = measured(
        "--url", server.url, "--rate", "200,400", "--requests", "10", "--rounds", "1",
        "--goal", "ttft=60000,e2e=60000", "--max-tokens", "3",
    )  # fmt: skip

    assert [row["load"] for row in document["rows"]] == ["200 a second", "400 a second"]
    for row in document["rows"]:
        assert row["answers"] == 10
        assert row["good_per_second"] == pytest.approx(row["requests_per_second"], abs=0.001)
        assert row["asked_late_ms_p50"] >= 0


def test_users_of_one_assistant_share_its_prompt(server: Server, engine: ScriptedEngine) -> None:
    engine.requests.clear()

    document = measured(
        "--url", server.url, "--workload", "shared-prefix", "--users", "3", "--turns", "2",
        "--system-words", "40", "--at-once", "2", "--rounds", "1", "--warmup", "0",
        "--max-tokens", "4",
    )  # fmt: skip

    assert document["rows"][0]["answers"] == 6
    assert len({request.messages[0].text for request in engine.requests}) == 1
    assert sorted(len(request.messages) for request in engine.requests) == [2, 2, 2, 4, 4, 4]


def test_a_second_server_is_asked_in_turn_and_the_ratio_printed(server: Server) -> None:
    words = ["--url", server.url, "--vs", server.url, "--vs-model", "gpt-4o-mini",
             "--at-once", "2", "--requests", "4", "--rounds", "2", "--max-tokens", "3"]  # fmt: skip

    result = bench(*words)
    ratios = measured(*words)["ratios"]

    assert "output tokens/s" in result.stdout
    assert f"{server.url} (gpt-4o-mini)" in result.stdout
    assert {ratio["figure"] for ratio in ratios} >= {"output tokens/s", "first output p50"}
    assert "round 2 of 2" in result.stderr


def test_results_are_written_and_drawn(server: Server, tmp_path: Path) -> None:
    result = bench(
        "--url", server.url, "--at-once", "1", "--requests", "2", "--rounds", "1",
        "--json", str(tmp_path / "r.json"), "--chart", str(tmp_path / "r.svg"),
        "--key", "psk_a_secret",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["rows"][0]["answers"] == 2
    assert document["about"]["options"]["num_requests"] == 2
    assert "psk_a_secret" not in (tmp_path / "r.json").read_text()
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    assert "TTFT" in result.stdout


def test_results_that_cannot_be_written_are_printed(server: Server, tmp_path: Path) -> None:
    result = bench("--url", server.url, "--at-once", "1", "--requests", "1", "--rounds", "1",
                   "--json", str(tmp_path))  # fmt: skip

    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert '"rows"' in result.stdout


def test_the_same_text_is_found_to_be_the_same(server: Server) -> None:
    result = bench("--url", server.url, "--at-once", "3", "--requests", "6", "--rounds", "1",
                   "--same-text", "--max-tokens", "4")  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "6 of 6 answers are the same as alone" in result.stdout


def test_a_text_that_differs_ends_with_an_error(server: Server, script: list[Step]) -> None:
    count = iter(range(1_000))

    def numbered(request: GenerateRequest) -> list[Step]:
        return [f"answer {next(count)}"]

    other = ScriptedEngine(numbered)
    directory = write_policy(server.gateway.policy.directory.parent / "differing")
    with serving(scripted_gateway(directory, {"scripted": other})) as differing:
        result = bench("--url", differing.url, "--at-once", "2", "--requests", "2",
                       "--rounds", "1", "--same-text")  # fmt: skip

    assert result.exit_code == 1
    assert "0 of 2 answers are the same as alone" in result.stdout


def test_a_server_that_refuses_everything_is_told_at_once(
    server: Server, script: list[Step]
) -> None:
    script[:] = [EngineOverloaded("64 requests are waiting")]

    result = bench("--url", server.url)

    assert result.exit_code == 1
    assert "answered no question" in result.stderr
    assert "64 requests are waiting (http_503)" in result.stderr


def test_where_no_server_answers_it_says_so() -> None:
    result = bench("--url", "http://127.0.0.1:9")

    assert result.exit_code == 1
    assert "nothing answers at http://127.0.0.1:9/" in result.stderr


def test_without_warm_up_a_run_of_failures_still_ends_with_an_error() -> None:
    result = bench("--url", "http://127.0.0.1:9", "--warmup", "0", "--at-once", "1",
                   "--requests", "2", "--rounds", "1")  # fmt: skip

    assert result.exit_code == 1
    assert "2 failed (connect)" in result.stdout


@pytest.mark.slow
def test_an_engine_is_measured_in_this_process_without_http() -> None:
    result = CliRunner().invoke(
        main,
        ["bench", "starter", "--engine", "laptop", "--policy", "policies/dev", "--at-once", "2",
         "--requests", "3", "--rounds", "1", "--max-tokens", "8", "--json"],
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    [row] = json.loads(result.stdout)["rows"]
    assert (row["url"], row["answers"], row["client_busy"]) == ("engine laptop", 3, None)
    assert 3 <= row["output_tokens"] <= 24
    assert "starter loaded in" in result.stderr


def test_the_roofline_is_told_where_shape_and_machine_are_given(server: Server) -> None:
    words = ["--url", server.url, "--at-once", "1", "--requests", "2", "--rounds", "1"]
    shape = "shape=engines/starter/config.json"

    document = measured(*words, "--roofline", f"{shape},bandwidth=3000,tflops=800")

    assert 0 < document["rows"][0]["roofline"] < 1
    refused = bench(*words, "--roofline", f"{shape},gpu=NVIDIA Abacus")
    assert refused.exit_code == 2
    assert "'NVIDIA Abacus' is not in the table (there are: NVIDIA H200" in refused.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--at-once", "1,x"], "--at-once '1,x' is not a list"),
        (["--at-once", "0"], "is not a list"),
        (["--at-once", "64"], "32 conversations are too few for 64 at once"),
        (["--rate", "2", "--at-once", "2"], "exclude each other"),
        (["--workload", "nano", "--endpoint", "chat"], "chat takes no token ids"),
        (["--prompt-tokens", "9", "--endpoint", "chat"], "chat takes no token ids"),
        (["--workload", "nano", "--same-text"], "--same-text needs --temperature 0"),
        (["--workload", "sharegpt", "--dataset", "nowhere.json"], "cannot be read"),
        (["--policy", "policies/dev"], "--policy goes with --engine"),
        (["--vs-model", "m"], "--vs-model goes with --vs"),
        (["--url", "http://a", "--url", "http://a", "--vs", "http://a"], "named too often"),
        (["--extra", "[1]"], "not a JSON object"),
        (["--extra", "{"], "not JSON"),
        (["--goal", "ttft"], "--goal takes ttft=…, tpot=…, e2e=…"),
        (["--goal", "ttft=soon"], "'soon' is not a number above 0"),
        (["--roofline", "gpu=NVIDIA L4"], "--roofline needs shape="),
        (["--roofline", "shape=nowhere"], "cannot be read"),
        (["--chart", "c.pdf"], "neither .png nor .svg"),
    ],
)
def test_options_that_make_no_sense_are_told_before_anything_is_asked(
    words: list[str], told: str
) -> None:
    result = bench(*words)

    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
