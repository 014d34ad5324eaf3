import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.fakes import ScriptedEngine
from tests.serving import SCRIPTED_POLICY, Server, scripted_gateway, serving, write_policy

PLUGINS = SCRIPTED_POLICY["gateway.toml"].replace('["anonymous",', '["usage", "anonymous",')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = write_policy(tmp_path_factory.mktemp("cli") / "policy", {"gateway.toml": PLUGINS})
    with serving(scripted_gateway(directory, {"scripted": ScriptedEngine()})) as server:
        body = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}
        for _ in range(3):
            httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)
        server.wait_until(lambda: server.gateway.usage.report().written == 3)
        yield server


def usage(server: Server, *words: str) -> Result:
    return CliRunner().invoke(main, ["usage", *words, "--url", server.url], env={"COLUMNS": "400"})


def test_sums_are_a_table_of_teams(server: Server) -> None:
    result = usage(server)

    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split()[:3] == ["team", "calls", "failed"]
    assert row.split() == ["me", "3", "0", "3", "0", "6"]


def test_csv_and_json_are_the_servers(server: Server) -> None:
    [row] = csv.DictReader(io.StringIO(usage(server, "--by", "model,day", "--csv").stdout))
    [same] = json.loads(usage(server, "--by", "model,day", "--json").stdout)["rows"]

    assert (row["model"], row["calls"]) == ("chat-small", "3")
    assert (same["model"], same["calls"], same["day"]) == ("chat-small", 3, row["day"])


def test_each_call_is_a_row_if_asked_for(server: Server) -> None:
    assert len(usage(server, "--by", "call").stdout.splitlines()) == 4
    assert "there are more" in usage(server, "--by", "call", "--limit", "2").stderr


def test_a_question_that_is_not_understood_is_explained(server: Server) -> None:
    result = usage(server, "--by", "tem")

    assert result.exit_code == 1
    assert 'did you mean "team"' in result.stderr


def test_nothing_used_says_where_to_look(server: Server, tmp_path: Path) -> None:
    assert "gateway.toml" in usage(server, "--team", "nobody", "--by", "team").stderr
