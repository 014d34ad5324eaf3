import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.keys.text import parsed

Penstock = Callable[..., Result]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    policy = tmp_path / "policy"
    policy.mkdir()
    (policy / "gateway.toml").write_text('plugins = ["api_keys", "allow_lists", "routing"]\n')
    (policy / "teams.toml").write_text('[me]\nmodels = ["*"]\n[search]\nmodels = ["*"]\n')
    for noun in ("engines", "models"):
        (policy / f"{noun}.toml").write_text("")
    (policy / "limits.toml").write_text("[bulk]\n")
    return {
        "PENSTOCK_DATA_DIR": str(tmp_path / "data"),
        "PENSTOCK_POLICY": str(policy),
        "PENSTOCK_LEDGER": "",
        "PENSTOCK_PEPPER": "",
        "COLUMNS": "200",
    }


@pytest.fixture
def penstock(environment: dict[str, str]) -> Penstock:
    def run(*arguments: str, **changes: str) -> Result:
        result = CliRunner().invoke(main, ["keys", *arguments], env={**environment, **changes})
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


def rows(penstock: Penstock) -> list[dict[str, str]]:
    return json.loads(penstock("list", "--json").stdout)


def test_the_key_stands_alone_on_standard_output(penstock: Penstock) -> None:
    result = penstock("create", "--team", "me", "--name", "laptop")

    assert result.exit_code == 0
    claim = parsed(result.stdout.removesuffix("\n"))
    assert claim is not None
    assert claim.id in result.stderr
    assert claim.secret not in result.stderr
    assert "only time" in result.stderr
    assert "does not load" not in result.stderr


def test_what_was_created_is_listed_without_its_secret(penstock: Penstock) -> None:
    key = penstock("create", "--team", "me", "--name", "lap[bold]top").stdout.strip()

    table, listed = penstock("list"), penstock("list", "--json")

    claim = parsed(key)
    assert claim is not None
    assert claim.id in table.stdout
    assert "lap[bold]top" in table.stdout
    assert claim.secret not in table.output + listed.output
    [row] = json.loads(listed.stdout)
    assert row.keys() == {
        "id",
        "team",
        "name",
        "role",
        "state",
        "created_at",
        "last_used_at",
        "expires_at",
        "disabled_at",
        "revoked_at",
        "rotated_at",
        "previous_expires_at",
        "previous_used_at",
        "models",
        "endpoints",
        "networks",
        "limits",
    }
    assert (row["id"], row["state"], row["expires_at"]) == (claim.id, "active", None)


def test_a_key_may_expire(penstock: Penstock) -> None:
    penstock("create", "--team", "me", "--name", "laptop", "--expires", "30d")

    [row] = rows(penstock)

    assert row["expires_at"] > row["created_at"]


@pytest.mark.parametrize("time", ["30", "d", "1y", "-1d", "1.5d", "30 d", "9999999d", ""])
def test_a_time_that_cannot_be_read_shows_one_that_can(penstock: Penstock, time: str) -> None:
    result = penstock("create", "--team", "me", "--name", "x", "--expires", time)

    assert result.exit_code == 2
    assert "30d" in result.stderr
    assert rows(penstock) == []


@pytest.mark.parametrize("time", ["0d", "999999w"])
def test_a_time_that_cannot_be_is_refused(penstock: Penstock, time: str) -> None:
    result = penstock("create", "--team", "me", "--name", "x", "--expires", time)

    assert result.exit_code == 1
    assert "expires" in result.stderr
    assert rows(penstock) == []


def test_a_team_that_the_policy_does_not_have_is_refused(penstock: Penstock) -> None:
    result = penstock("create", "--team", "serch", "--name", "laptop")

    assert result.exit_code == 1
    assert "'serch'" in result.stderr
    assert "me, search" in result.stderr
    assert rows(penstock) == []


def test_force_makes_a_key_for_any_team(penstock: Penstock) -> None:
    result = penstock("create", "--team", "later", "--name", "laptop", "--force")

    assert (result.exit_code, result.stderr.count("\n")) == (0, 1)
    assert [row["team"] for row in rows(penstock)] == ["later"]


def test_a_policy_that_does_not_load_is_said_and_does_not_stop(penstock: Penstock) -> None:
    result = penstock("create", "--team", "me", "--name", "x", PENSTOCK_POLICY="/nowhere/here")

    assert result.exit_code == 0
    assert "/nowhere/here does not load, so team 'me' is not checked" in result.stderr
    assert parsed(result.stdout.strip()) is not None


@pytest.mark.parametrize("given", ["id", "key", "start", "start of key"])
def test_a_key_is_revoked_by_what_names_it(penstock: Penstock, given: str) -> None:
    key = penstock("create", "--team", "me", "--name", "laptop").stdout.strip()
    claim = parsed(key)
    assert claim is not None
    names = {"id": claim.id, "key": key, "start": claim.id[:6], "start of key": key[:20]}

    result = penstock("revoke", names[given])

    assert result.exit_code == 0
    assert f"key {claim.id} (laptop, team me) is revoked" in result.stdout
    assert [row["state"] for row in rows(penstock)] == ["revoked"]


def test_revoking_twice_says_so_and_changes_nothing(penstock: Penstock) -> None:
    penstock("create", "--team", "me", "--name", "laptop")
    [row] = rows(penstock)
    penstock("revoke", row["id"])
    [revoked] = rows(penstock)

    result = penstock("revoke", row["id"])

    assert (result.exit_code, "already" in result.stdout) == (0, True)
    assert rows(penstock) == [revoked]


@pytest.mark.parametrize("given", ["unknown", "", "sk-penstock-", "%", "' OR 1=1 --"])
def test_an_unknown_key_is_answered_with_where_to_look(penstock: Penstock, given: str) -> None:
    penstock("create", "--team", "me", "--name", "laptop")

    result = penstock("revoke", "--", given)

    assert result.exit_code == 1
    assert "penstock keys list" in result.stderr
    assert [row["state"] for row in rows(penstock)] == ["active"]


def test_a_start_that_several_keys_share_revokes_none(
    penstock: Penstock, environment: dict[str, str]
) -> None:
    for _ in range(2):
        penstock("create", "--team", "me", "--name", "laptop")
    with closing(sqlite3.connect(Path(environment["PENSTOCK_DATA_DIR"], "ledger.db"))) as database:
        database.execute("UPDATE api_keys SET id = 'abc' || substr(id, 4)")
        database.commit()

    result = penstock("revoke", "abc")

    assert result.exit_code == 1
    assert all(row["id"] in result.stderr for row in rows(penstock))
    assert [row["state"] for row in rows(penstock)] == ["active", "active"]


def test_no_keys_is_answered_with_how_to_make_one(penstock: Penstock) -> None:
    result = penstock("list")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "penstock keys create" in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PENSTOCK_LEDGER", "nonsense", "PENSTOCK_LEDGER"),
        ("PENSTOCK_PEPPER", "hunter2", "32 characters"),
        ("PENSTOCK_PORT", "eighty", "PENSTOCK_PORT='eighty'"),
        ("PENSTOCK_DATA_DIR", "/dev/null/x", "/dev/null/x"),
    ],
)
def test_a_wrong_setting_is_named(
    penstock: Penstock, variable: str, value: str, expected: str
) -> None:
    result = penstock("create", "--team", "me", "--name", "x", **{variable: value})

    assert result.exit_code == 1
    assert expected in result.stderr
    assert "Traceback" not in result.output
    assert "hunter2" not in result.output
