"""`penstock keys` on keys that are there already, and keys that may do less than their team."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.keys import Keys, open_pepper
from gateway.keys.text import parsed
from gateway.ledger import open_ledger
from gateway.settings import Settings
from tests.gateway.cli.test_keys import (  # noqa: F401 - fixtures
    Penstock,
    environment,
    penstock,
    rows,
)

Works = Callable[[str], bool]


@pytest.fixture
def works(environment: dict[str, str]) -> Works:  # noqa: F811
    """Would a gateway on the same ledger accept this key?"""
    settings = Settings(data_dir=Path(environment["PENSTOCK_DATA_DIR"]))

    async def verified(key: str) -> bool:
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            return await keys.verify(key) is not None

    return lambda key: asyncio.run(verified(key))


def made(penstock: Penstock, *options: str) -> str:  # noqa: F811
    result = penstock("create", "--team", "me", "--name", "laptop", *options)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()


def test_a_key_may_be_less_than_its_team(penstock: Penstock) -> None:  # noqa: F811
    options = ["--model", "chat-*", "--model", "!chat-secret", "--endpoint", "openai.chat"]
    options += ["--network", "10.0.0.0/8", "--limits", "bulk", "--role", "admin"]
    made(penstock, *options)

    [row] = rows(penstock)
    table = penstock("list").stdout

    assert (row["models"], row["endpoints"]) == (["chat-*", "!chat-secret"], ["openai.chat"])
    assert (row["networks"], row["limits"], row["role"]) == (["10.0.0.0/8"], "bulk", "admin")
    assert "role admin; only models chat-* !chat-secret; endpoints" in table
    assert "networks 10.0.0.0/8" in " ".join(table.split())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--network", "10.0.0.7/8"], "write 10.0.0.0/8"),
        (["--model", "!x"], "only deny"),
        (["--limits", "bulky"], "no limits 'bulky' (there are: bulk)"),
        (["--role", "owner"], "owner"),
    ],
)
def test_what_cannot_be_is_refused(
    penstock: Penstock,  # noqa: F811
    options: list[str],
    expected: str,
) -> None:
    result = penstock("create", "--team", "me", "--name", "laptop", *options)

    assert result.exit_code != 0
    assert expected in result.stderr
    assert rows(penstock) == []


def test_disabling_stops_a_key_and_enabling_lets_it_go_on(
    penstock: Penstock,  # noqa: F811
    works: Works,
) -> None:
    key = made(penstock)
    disabled = penstock("disable", key)
    assert "is disabled; a running gateway knows it within a second" in disabled.stdout
    assert [row["state"] for row in rows(penstock)] == ["disabled"]
    assert not works(key)

    assert penstock("enable", key).exit_code == 0
    assert works(key)


def test_rotating_prints_a_new_secret_and_both_work(
    penstock: Penstock,  # noqa: F811
    works: Works,
) -> None:
    old = made(penstock)

    result = penstock("rotate", old, "--grace", "1h")

    new = result.stdout.strip()
    first, second = parsed(old), parsed(new)
    assert first is not None
    assert second is not None
    assert first.id == second.id
    assert second.secret not in result.stderr
    assert works(old)
    assert works(new)
    table = " ".join(penstock("list").stdout.split())
    assert "the secret before works until" in table


def test_rotating_without_grace_ends_the_secret_before(
    penstock: Penstock,  # noqa: F811
    works: Works,
) -> None:
    old = made(penstock)

    new = penstock("rotate", old, "--grace", "0").stdout.strip()

    assert not works(old)
    assert works(new)


def test_rotating_twice_within_the_grace_says_what_to_do(penstock: Penstock) -> None:  # noqa: F811
    key = made(penstock)
    penstock("rotate", key)

    result = penstock("rotate", key)

    assert result.exit_code == 1
    assert "rotate with a grace of 0" in result.stderr
    assert penstock("rotate", key, "--grace", "never").exit_code == 2


def test_an_expiry_may_be_set_and_taken_back(penstock: Penstock) -> None:  # noqa: F811
    key = made(penstock)

    penstock("expire", key, "30d")
    assert rows(penstock)[0]["expires_at"] is not None
    penstock("expire", key, "never")
    assert rows(penstock)[0]["expires_at"] is None


def test_a_revoked_key_cannot_be_brought_back(penstock: Penstock) -> None:  # noqa: F811
    key = made(penstock)
    penstock("revoke", key)

    for arguments in (["enable", key], ["expire", key, "never"], ["rotate", key]):
        result = penstock(*arguments)
        assert (result.exit_code, "is revoked" in result.stderr) == (1, True)


def test_narrowing_replaces_what_was_there(penstock: Penstock) -> None:  # noqa: F811
    key = made(penstock, "--model", "chat-*")

    assert penstock("narrow", key).exit_code == 2
    assert penstock("narrow", key, "--not-at-all", "--model", "x").exit_code == 2
    penstock("narrow", key, "--network", "192.0.2.0/24")
    [row] = rows(penstock)
    assert (row["models"], row["networks"]) == (None, ["192.0.2.0/24"])
    penstock("narrow", key, "--not-at-all")
    assert rows(penstock)[0]["networks"] is None


def test_one_teams_keys_are_listed_alone(penstock: Penstock) -> None:  # noqa: F811
    made(penstock)
    penstock("create", "--team", "search", "--name", "bot")

    assert "bot" not in penstock("list", "--team", "me").stdout


def test_a_store_that_is_away_does_not_keep_a_key_alive(
    penstock: Penstock,  # noqa: F811
    works: Works,
) -> None:
    key = made(penstock)

    result = penstock("revoke", key, PENSTOCK_STORE="redis://127.0.0.1:1/0")

    assert result.exit_code == 0
    assert not works(key)
