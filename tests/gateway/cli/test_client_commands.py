"""`run`, `list` and `ps`, as a user types them, against a served gateway."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from engines.errors import Unavailable
from gateway.cli import main
from tests.fakes import ScriptedEngine, Step
from tests.serving import Server, scripted_gateway, serving, write_policy

SCRIPT: list[Step] = ["hello", " there"]


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(lambda _: SCRIPT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine: ScriptedEngine) -> Iterator[Server]:
    directory = write_policy(tmp_path_factory.mktemp("cli") / "policy")
    with serving(scripted_gateway(directory, {"scripted": engine})) as running:
        yield running


@pytest.fixture(autouse=True)
def script() -> Iterator[list[Step]]:
    before = list(SCRIPT)
    yield SCRIPT
    SCRIPT[:] = before


def penstock(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, list(words), input=stdin)


def test_run_with_a_question_prints_the_answer_alone(server: Server) -> None:
    result = penstock("run", "chat-small", "how", "are", "you", "--url", server.url)

    assert result.exit_code == 0
    assert result.stdout == "hello there\n"


def test_run_sends_the_question_the_system_message_and_the_options(
    server: Server, engine: ScriptedEngine
) -> None:
    penstock(
        "run", "chat-small", "hi you", "--system", "be kind", "--temperature", "0",
        "--max-tokens", "7", "--url", server.url + "/v1",
    )  # fmt: skip

    request = engine.requests[-1]
    assert [(message.role, message.text) for message in request.messages] == [
        ("system", "be kind"),
        ("user", "hi you"),
    ]
    assert request.sampling.temperature == 0
    assert request.max_tokens == 7


def test_run_takes_the_question_from_a_pipe(server: Server, engine: ScriptedEngine) -> None:
    result = penstock("run", "chat-small", "--url", server.url, stdin="from a pipe\n")

    assert result.stdout == "hello there\n"
    assert engine.requests[-1].messages[-1].text == "from a pipe"


def test_run_names_a_model_that_is_not_there(server: Server) -> None:
    result = penstock("run", "no-such-model", "hi", "--url", server.url)

    assert result.exit_code == 1
    assert "model 'no-such-model' not found" in result.output


def test_run_tells_an_error_in_mid_stream(server: Server, script: list[Step]) -> None:
    script[:] = ["half", Unavailable("the engine died")]

    result = penstock("run", "chat-small", "hi", "--url", server.url)

    assert result.exit_code == 1
    assert "the engine died" in result.output


@pytest.mark.parametrize("words", [["run", "m", "hi"], ["usage"]])
def test_without_a_gateway_one_is_told_how_to_start_it(words: list[str]) -> None:
    result = penstock(*words, "--url", "http://127.0.0.1:9")

    assert result.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:9" in result.output
    assert "penstock serve" in result.output


def test_list_shows_the_models_that_the_caller_may_use(server: Server) -> None:
    table = penstock("list", "--url", server.url)
    as_json = penstock("list", "--json", "--url", server.url)

    assert "chat-small" in table.stdout
    assert "chat-small" in [model["name"] for model in json.loads(as_json.stdout)]


def test_ps_shows_loaded_models_and_to_admins_engines(server: Server) -> None:
    penstock("run", "chat-small", "load", "it", "--url", server.url)

    shown = penstock("ps", "--url", server.url)
    with_engines = penstock("ps", "--engines", "--url", server.url)
    as_json = json.loads(penstock("ps", "--engines", "--json", "--url", server.url).stdout)

    assert "chat-small" in shown.stdout
    assert "scripted-model" in with_engines.stdout
    assert [engine["name"] for engine in as_json["engines"]] == ["scripted"]
    assert as_json["models"][0]["loaded"] is True


def test_a_misspelled_command_is_answered_with_the_nearest_one() -> None:
    result = penstock("srve")

    assert result.exit_code == 2
    assert "did you mean `penstock serve`?" in result.output
