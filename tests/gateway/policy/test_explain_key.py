from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.hooks import read_policy
from gateway.keys import ApiKey, row_of
from gateway.policy import Policy
from gateway.policy.explain import Line, explain
from tests.gateway.policy.directories import write

NOW = datetime(2026, 3, 1, tzinfo=UTC)
GATEWAY = """
plugins = ["api_keys", "allow_lists", "defaults", "routing", "rate_limits", "gguf_engine"]
"""
MODELS = """
[chat-small]
targets = [{ engine = "gpu0" }, { engine = "gpu0", model = "new", canary = { keys = ["k3*"] } }]
[chat-secret]
targets = [{ engine = "gpu0" }]
"""
TEAMS = """
[search]
models    = ["*"]
endpoints = ["*"]
networks  = ["10.0.0.0/8"]
limits    = "standard"
"""
LIMITS = """
[standard]
requests_per_minute = 600
[bulk]
tokens_per_minute = 1000
[each-key]
per = ["key"]
concurrent_calls = 2
"""


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return read_policy(write(tmp_path, gateway=GATEWAY, models=MODELS, teams=TEAMS, limits=LIMITS))


def told(
    policy: Policy,
    endpoint: str = "openai.chat",
    model: str | None = "chat-small",
    **fields: object,
) -> list[Line]:
    key = ApiKey(
        id="k3v9", team="search", name="bot", created_at=NOW, digest=b"", pepper_version="",
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip
    return list(
        explain(policy, team="search", endpoint=endpoint, model=model, key=row_of(key, NOW))
    )


def test_a_key_that_takes_nothing_away_is_named_and_no_more(policy: Policy) -> None:
    lines = told(policy)

    assert not lines[-1].refused
    assert [line.text for line in lines if "k3v9" in line.text] == [
        "key k3v9 acts for search, as member",
        "100 of 100 calls of key k3v9 go first to gpu0 new, as its canary",
    ]


def test_each_list_of_a_key_comes_after_its_teams(policy: Policy) -> None:
    lines = told(
        policy, models=("chat-*", "!chat-secret"), endpoints=("openai.*",),
        networks=("10.1.0.0/16",), limits="bulk",
    )  # fmt: skip

    found = [(line.text, line.where) for line in lines]
    assert found[:7] == [
        ("search may use openai.chat", 'teams.toml [search] endpoints "*"'),
        ('only from an address in "10.0.0.0/8"', "teams.toml [search] networks"),
        ("key k3v9 acts for search, as member", "key k3v9"),
        ('only from an address in "10.1.0.0/16"', "key k3v9 networks"),
        ("key k3v9 may use openai.chat", 'key k3v9 endpoints "openai.*"'),
        ("search may use chat-small", 'teams.toml [search] models "*"'),
        ("key k3v9 may use chat-small", 'key k3v9 models "chat-*"'),
    ]
    assert found[-3:] == [
        ("600 requests a minute", "limits.toml [standard]"),
        ("1,000 tokens a minute for each key", "limits.toml [bulk]"),
        ("2 at once for each key", "limits.toml [each-key]"),
    ]


@pytest.mark.parametrize(
    ("fields", "text", "where"),
    [
        ({"models": ("!chat-small", "*")}, "may not use chat-small", 'models "!chat-small"'),
        ({"endpoints": ("openai.embeddings",)}, "may not use openai.chat", "endpoints has only"),
        ({"limits": "gone"}, 'limits.toml has no "gone" any more', "limits"),
        ({"revoked_at": NOW}, "key k3v9 is revoked", "key k3v9"),
        ({"disabled_at": NOW}, "key k3v9 is disabled", "key k3v9"),
        ({"expires_at": NOW}, "key k3v9 is expired", "key k3v9"),
    ],
)
def test_what_ends_the_call_is_said_last(
    policy: Policy, fields: dict[str, object], text: str, where: str
) -> None:
    last = told(policy, **fields)[-1]

    assert last.refused
    assert text in last.text
    assert where in last.where


def test_an_admin_endpoint_wants_the_keys_role(policy: Policy) -> None:
    assert told(policy, "admin.keys", None)[-1].refused
    assert not told(policy, "admin.keys", None, role="admin")[-1].refused


def test_a_policy_without_api_keys_knows_no_key(tmp_path: Path) -> None:
    without = GATEWAY.replace("api_keys", "anonymous") + '[anonymous]\nteam = "search"\n'
    files = {"gateway": without, "models": MODELS, "teams": TEAMS, "limits": LIMITS}

    last = told(read_policy(write(tmp_path, **files)))[-1]

    assert (last.text, last.where) == ("refused: no plugin knows keys", "gateway.toml plugins")
