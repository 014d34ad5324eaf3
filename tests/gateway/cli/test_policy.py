import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.cli.policy import command
from gateway.keys import id_in
from gateway.store import Bucket, Demand, open_store
from tests.fakes import ScriptedEngine
from tests.redis_server import redis_server
from tests.serving import SCRIPTED_POLICY, Server, scripted_gateway, serving, write_policy

POLICIES = Path(__file__).parents[3] / "policies"

PROD = str(POLICIES / "prod")


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def _copy(tmp_path: Path, **replaced: tuple[str, str]) -> Path:
    """policies/prod with some text replaced in some files."""
    for path in (POLICIES / "prod").iterdir():
        old, new = replaced.get(path.stem, ("", ""))
        assert old in path.read_text()
        (tmp_path / path.name).write_text(path.read_text().replace(old, new, 1))
    return tmp_path


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_policies_that_ship_hold_without_a_warning(name):
    result = _run("check", POLICIES / name)

    assert result.exit_code == 0
    assert "warning" not in result.output
    assert f"{name} holds: " in result.stdout


def test_every_problem_is_printed_and_the_exit_status_is_1(tmp_path):
    directory = _copy(
        tmp_path, models=("engine =", "engin ="), teams=('"bulk"', '"bluk"'), limits=("512", "-1")
    )

    result = _run("check", directory)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert 'models.toml: [starter] targets[0]: unknown key "engin"' in result.stderr
    assert 'teams.toml: [batch] limits: "bluk" is not in limits.toml' in result.stderr
    assert "limits.toml: [bulk] max_output_tokens: -1 is not" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("4 problems in ")


def test_a_warning_is_printed_and_the_policy_holds(tmp_path):
    directory = _copy(tmp_path, limits=("[unlimited]", "[unlimited]\n[nobody]"))

    result = _run("check", directory)

    assert result.exit_code == 0
    assert "warning: limits.toml: [nobody]: no team of teams.toml has these limits" in result.stdout


def test_a_directory_that_is_not_there_is_a_problem_and_no_traceback(tmp_path):
    result = _run("check", tmp_path / "nowhere")

    assert result.exit_code == 1
    assert "there is no policy directory" in result.stderr


def test_explain_says_what_happens_and_which_line_decided_it():
    result = _run(
        "explain", PROD, "--team", "apps", "--endpoint", "openai.chat", "--model", "gpt-4o-mini"
    )

    assert result.exit_code == 0
    lines = [line.split("  ")[0] for line in result.stdout.splitlines()]
    assert lines == [
        "gpt-4o-mini is an alias of starter",
        "apps may use openai.chat",
        "apps may use starter",
        "temperature defaults to 0.7; output is capped at 1024",
        "goes to main starter",
        "600 requests and 200,000 tokens a minute, 32 at once",
        "100,000 tokens a minute, 16 at once for each key",
    ]
    assert 'teams.toml [apps] endpoints "openai.*"' in result.stdout
    # A directory knows the limits, and not what was used of them.
    assert "how full the limits are, a running gateway says" in result.stderr


def test_explain_exits_with_1_when_the_call_would_be_refused():
    result = _run(
        "explain", PROD, "--team", "batch", "--endpoint", "openai.chat", "--model", "starter"
    )

    assert result.exit_code == 1
    assert "refused: batch may not use openai.chat" in result.stdout


def test_explain_warns_about_an_endpoint_that_is_misspelt():
    result = _run("explain", PROD, "--team", "platform", "--endpoint", "openai.chta")

    assert result.exit_code == 0
    assert 'warning: "openai.chta" is not an endpoint' in result.stderr
    assert "platform may use openai.chta" in result.stdout


def test_explain_of_a_broken_policy_says_what_is_broken(tmp_path):
    directory = _copy(tmp_path, teams=('"bulk"', '"bluk"'))

    result = _run("explain", directory, "--team", "apps", "--endpoint", "openai.chat")

    assert result.exit_code == 1
    assert 'limits: "bluk" is not in limits.toml (did you mean "bulk"?)' in result.stderr


def test_explain_says_how_full_the_limits_are_that_gateways_share(monkeypatch, tmp_path):
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path))
    key = _key("--team", "apps", "--limits", "bulk")
    with redis_server() as server:
        monkeypatch.setenv("PENSTOCK_STORE", server.url + "?timeout_seconds=10")
        bucket = Bucket(kind="leases", key="standard:concurrent_calls:team=apps", limit=32)

        async def take() -> None:
            async with (store := open_store(server.url + "?timeout_seconds=10")).running():
                await store.reserve("c1", [Demand(bucket=bucket)])

        asyncio.run(take())
        result = _run(
            "explain", PROD, "--key-id", key, "--endpoint", "openai.chat", "--model", "starter",
        )  # fmt: skip

    assert result.exit_code == 0
    assert [line.split("  ")[0] for line in result.stdout.splitlines()][-7:] == [
        'requests_per_minute of team "apps": 0 of 600 requests used',
        'tokens_per_minute of team "apps": 0 of 200,000 tokens used',
        'concurrent_calls of team "apps": 1 of 32 running',
        # The key's own table, and the one with `per`.
        f'tokens_per_minute of key "{key}": 0 of 500,000 tokens used',
        f'concurrent_calls of key "{key}": 0 of 8 running',
        f'tokens_per_minute of key "{key}": 0 of 100,000 tokens used',
        f'concurrent_calls of key "{key}": 0 of 16 running',
    ]


def test_explain_tells_what_a_key_takes_away(monkeypatch, tmp_path):
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path))
    key = _key("--team", "apps", "--model", "chat-*", "--network", "192.0.2.0/24")

    refused = _run(
        "explain", PROD, "--key-id", key, "--endpoint", "openai.chat", "--model", "starter"
    )
    allowed = _run("explain", PROD, "--key-id", key[:5], "--endpoint", "openai.models")

    assert (refused.exit_code, allowed.exit_code) == (1, 0)
    assert f"refused: key {key} may not use starter" in refused.stdout
    assert f"key {key} acts for apps, as member" in allowed.stdout
    assert 'only from an address in "192.0.2.0/24"' in allowed.stdout


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--key-id", "nobody"], "there is no key"),
        (["--team", "batch", "--key-id", "KEY"], "is of team 'apps', not of 'batch'"),
        ([], "say who would call"),
        (["--key", "KEY"], "a key's public id is said with --key-id"),
    ],
)
def test_explain_of_nobody_says_what_is_missing(monkeypatch, tmp_path, asked, said):
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path))
    key = _key("--team", "apps")

    result = _run(
        "explain", PROD, "--endpoint", "openai.chat", *[key if x == "KEY" else x for x in asked]
    )

    assert result.exit_code != 0
    assert said in result.stderr


def _key(*options: str) -> str:
    """A key made for a test; its public id."""
    environment = {"PENSTOCK_POLICY": PROD}
    made = CliRunner().invoke(main, ["keys", "create", "--name", "x", *options], env=environment)
    return id_in(made.stdout.strip())


def test_explain_says_when_the_shared_store_does_not_answer(monkeypatch):
    monkeypatch.setenv("PENSTOCK_STORE", "unix:///nowhere/redis.sock")

    result = _run(
        "explain", PROD, "--team", "apps", "--endpoint", "openai.chat", "--model", "starter"
    )

    assert result.exit_code == 1
    assert "the store of PENSTOCK_STORE does not answer" in result.stderr


def ask(server: Server, command: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["policy", command, *words, "--url", server.url])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    directory = write_policy(tmp_path / "served")
    with serving(scripted_gateway(directory, {"scripted": ScriptedEngine()})) as server:
        yield server


def test_a_running_gateway_explains_how_full_the_limits_are(server: Server) -> None:
    directory = server.gateway.policy.directory
    plugins = SCRIPTED_POLICY["gateway.toml"].replace('"routing"', '"routing", "rate_limits"')
    (directory / "gateway.toml").write_text(plugins)
    (directory / "limits.toml").write_text("[none]\nrequests_per_minute = 60")
    ask(server, "reload")
    asked = ["--endpoint", "openai.chat", "--model", "gpt-4o-mini"]

    told = ask(server, "explain", "--team", "me", *asked)
    refused = ask(server, "explain", "--team", "nobody", *asked)

    assert told.exit_code == 0
    lines = [line.split("  ")[0] for line in told.stdout.splitlines()]
    assert lines[-1] == 'requests_per_minute of team "me": 0 of 60 requests used'
    assert "gpt-4o-mini is an alias of chat-small" in lines
    assert refused.exit_code == 1
    assert "refused: nobody is not a team" in refused.stdout


def test_a_running_gateways_policy_is_compared_and_reloaded(server: Server) -> None:
    directory = server.gateway.policy.directory
    before = ask(server, "show").stdout
    unchanged = ask(server, "diff")
    (directory / "teams.toml").write_text(SCRIPTED_POLICY["teams.toml"] + "\n[new]\n")

    told = ask(server, "diff")
    done = ask(server, "reload")

    assert before.startswith(f"{directory}  ")
    assert (unchanged.stdout, unchanged.stderr) == ("", "a reload would change nothing\n")
    assert told.stdout == "teams.toml: [new] added\n"
    assert done.stdout.endswith(told.stdout)  # the gateway in this process may log there, too
    assert done.stderr == f"serving {server.gateway.policy.digest[:12]}\n"
    assert server.gateway.policy.digest[:12] in ask(server, "show").stdout
    assert '"new"' in ask(server, "show", "--json").stdout


def test_a_policy_that_a_gateway_cannot_take_exits_with_1(server: Server) -> None:
    (server.gateway.policy.directory / "teams.toml").write_text("nonsense")

    told, done = ask(server, "diff"), ask(server, "reload")

    assert (told.exit_code, done.exit_code) == (1, 1)
    assert told.stderr.startswith("teams.toml: line 1")
    assert "the policy stays as it is: teams.toml: line 1" in done.stderr
    assert "was refused: teams.toml" in ask(server, "show").stdout
