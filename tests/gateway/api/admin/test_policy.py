import pytest

from engines.errors import Overloaded, Unavailable
from gateway.store import StoreUnavailable
from tests.gateway.api.admin.conftest import PLUGINS, TEAMS, Stage

LIMITS = """
[none]
requests_per_minute = 60
concurrent_calls    = 4

[each-key]
per = ["key"]
tokens_per_minute = 500
"""


def test_the_policy_is_shown_whole_with_its_digest(stage: Stage) -> None:
    shown = stage.get("policy").json()

    assert shown["digest"] == stage.gateway.policy.digest
    assert shown["last_reload"] is None
    assert shown["policy"]["teams"]["search"]["endpoints"] == ["openai.*"]
    assert shown["policy"]["plugins"][0] == "usage"


def test_a_call_is_explained_by_the_lines_that_decide_it(stage: Stage) -> None:
    allowed = stage.get(
        "policy/explain", team="search", endpoint="openai.chat", model="gpt-4o-mini"
    ).json()
    refused = stage.get("policy/explain", team="search", endpoint="admin.keys").json()

    assert not allowed["refused"]
    assert allowed["lines"][0]["text"] == "gpt-4o-mini is an alias of chat-small"
    assert refused["refused"]
    assert "may not use admin.keys" in refused["lines"][-1]["text"]


def test_a_key_is_explained_with_what_it_takes_away(stage: Stage) -> None:
    made = stage.post("keys", {"team": "search", "name": "x", "models": ["other"]}).json()["key"]

    told = stage.get(
        "policy/explain", key=made["id"], endpoint="openai.chat", model="chat-small"
    ).json()

    assert told["refused"]
    assert told["lines"][-1]["text"] == f"refused: key {made['id']} may not use chat-small"
    for asked, param in (
        ({"key": "nobody"}, "key"),
        ({"key": made["id"], "team": "me"}, "team"),
        ({}, "team"),
    ):
        refused = stage.get("policy/explain", endpoint="openai.chat", **asked)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def limit(stage: Stage) -> None:
    """Let the gateway count what calls use."""
    files = {
        "gateway.toml": PLUGINS.replace('"routing"', '"routing", "rate_limits"'),
        "limits.toml": LIMITS,
    }
    for name, text in files.items():
        (stage.gateway.settings.policy / name).write_text(text)
    assert stage.post("policy/reload").status_code == 200


ASKED = {"endpoint": "openai.chat", "model": "chat-small"}


def test_a_call_is_explained_with_how_full_its_limits_are_and_when_they_clear(
    stage: Stage,
) -> None:
    limit(stage)
    key = stage.post("keys", {"team": "me", "name": "x"}).json()["key"]["id"]
    stage.ask()

    of_team = stage.get("policy/explain", team="me", **ASKED).json()["lines"]
    of_key = stage.get("policy/explain", key=key, **ASKED).json()["lines"]

    # What each key has for itself is not told where no key is named.
    fills = of_team[-2:]
    assert [line["where"] for line in fills] == ["limits.toml [none]"] * 2
    assert fills[0]["text"].startswith(
        'requests_per_minute of team "me": 1 of 60 requests used, clear in '
    )
    assert fills[1]["text"] == 'concurrent_calls of team "me": 0 of 4 running'
    assert [line["text"] for line in of_team].count("60 requests a minute, 4 at once") == 1
    assert of_key[-1] == {
        "text": f'tokens_per_minute of key "{key}": 0 of 500 tokens used',
        "where": "limits.toml [each-key]",
        "refused": False,
    }


def test_a_call_that_would_be_refused_or_names_no_model_meets_no_limits(stage: Stage) -> None:
    limit(stage)

    refused = stage.get("policy/explain", team="search", endpoint="admin.keys", model="chat-small")
    no_model = stage.get("policy/explain", team="me", endpoint="openai.models")

    for answer in (refused, no_model):
        assert "per_minute" not in answer.text


def test_a_store_that_does_not_answer_keeps_nobody_from_the_rest(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(demands: object) -> None:
        raise StoreUnavailable("away")

    limit(stage)
    monkeypatch.setattr(stage.gateway.store, "peek", away)

    told = stage.get("policy/explain", team="me", **ASKED).json()

    assert not told["refused"]
    assert told["lines"][-1]["text"].startswith("how full they are is not known")
    assert len(told["lines"]) > 1


def test_a_reload_names_who_wanted_it(stage: Stage) -> None:
    (stage.gateway.settings.policy / "teams.toml").write_text(TEAMS + "[new]\n")

    told = stage.post("policy/reload").json()

    assert told["changes"] == ["teams.toml: [new] added"]
    [row] = stage.audit()
    assert (row["action"], row["principal"], row["team"]) == ("policy.reload", "anonymous", "me")
    assert row["after"] == {"digest": told["digest"], "changes": told["changes"]}
    assert stage.get("policy").json()["last_reload"]["by"] == "anonymous"


def test_the_calls_log_line_has_the_policys_digest(stage: Stage) -> None:
    answer = stage.ask()

    stage.until_written(1)
    [record] = stage.get("usage", by="call").json()["rows"]
    assert record["call_id"] == answer.headers["x-request-id"]
    assert record["policy"] == stage.get("policy").json()["digest"][:12]


def at_the_moment(stage: Stage) -> list[str]:
    told = stage.get(
        "policy/explain", team="search", endpoint="openai.chat", model="chat-small"
    ).json()
    assert not told["refused"]
    return [line["text"] for line in told["lines"] if line["text"].startswith("at the moment")]


def test_a_running_gateway_says_which_targets_are_left_now(stage: Stage) -> None:
    assert at_the_moment(stage) == []

    stage.script[:] = [Overloaded("429", retry_after=42)]
    stage.ask()
    assert at_the_moment(stage) == [
        "at the moment scripted scripted-model is asked last for 42 s: "
        "it said that it is overloaded"
    ]

    stage.script[:] = [Unavailable("gone", retry_after=30)]
    for _ in range(5):
        stage.ask()
    assert at_the_moment(stage) == [
        "at the moment scripted scripted-model is left alone for 30 s: breaker open"
    ]

    stage.post("targets/drain", {"engine": "scripted"})
    assert at_the_moment(stage) == [
        "at the moment scripted scripted-model is drained: no new calls"
    ]
