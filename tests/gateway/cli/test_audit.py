import getpass
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main

Penstock = Callable[..., Result]


@pytest.fixture
def penstock(tmp_path: Path) -> Penstock:
    environment = {
        "PENSTOCK_DATA_DIR": str(tmp_path / "data"),
        "PENSTOCK_LEDGER": "",
        "PENSTOCK_PEPPER": "",
        "COLUMNS": "200",
    }

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, list(words), env=environment)

    return run


def make_and_revoke(penstock: Penstock) -> str:
    penstock("keys", "create", "--team", "a[b]", "--name", "x", "--force")
    [key] = json.loads(penstock("keys", "list", "--json").stdout)
    penstock("keys", "revoke", key["id"])
    penstock("keys", "revoke", key["id"])
    return key["id"]


def test_what_the_keys_command_does_is_in_the_log_with_its_user(penstock: Penstock) -> None:
    key_id = make_and_revoke(penstock)

    result = penstock("audit", "list", "--json")

    revoked, created = [json.loads(line) for line in result.stdout.splitlines()]
    assert (created["action"], revoked["action"]) == ("keys.create", "keys.revoke")
    assert created["subject"] == revoked["subject"] == key_id
    assert created["principal"] == f"{getpass.getuser()} (command line)"
    assert (revoked["before"]["state"], revoked["after"]["state"]) == ("active", "revoked")


def test_the_list_is_a_table_that_can_be_narrowed(penstock: Penstock) -> None:
    key_id = make_and_revoke(penstock)

    every = penstock("audit", "list").stdout.splitlines()
    one = penstock("audit", "list", "--action", "keys.create", "--subject", key_id).stdout

    assert [line.split()[0] for line in every] == ["seq", "2", "1"]
    assert len(one.splitlines()) == 2


def test_a_chain_that_holds_says_its_head_which_can_be_held_against_it(penstock: Penstock) -> None:
    empty = penstock("audit", "verify")
    make_and_revoke(penstock)

    result = penstock("audit", "verify")
    again = penstock("audit", "verify", *result.stdout.partition("head is ")[2].split())

    assert (empty.exit_code, empty.stdout) == (0, "the log is empty\n")
    assert (result.exit_code, again.exit_code) == (0, 0)
    assert result.stdout.startswith("all 2 rows hold")


def test_a_chain_that_was_tampered_with_exits_with_1(penstock: Penstock, tmp_path: Path) -> None:
    make_and_revoke(penstock)
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db")) as database:
        database.execute("DROP TRIGGER audit_log_no_update")
        database.execute("UPDATE audit_log SET principal = 'somebody else' WHERE seq = 1")
        database.commit()

    result = penstock("audit", "verify")

    assert result.exit_code == 1
    assert "row 1 does not hold: its content was changed" in result.stderr


def test_half_of_a_head_is_refused(penstock: Penstock) -> None:
    result = penstock("audit", "verify", "--seq", "3")

    assert result.exit_code == 2
    assert "give both" in result.stderr


def test_an_empty_log_says_so(penstock: Penstock) -> None:
    assert penstock("audit", "list").stderr == "nothing was done yet\n"
