"""Disable, enable, expire, narrow and rotate over HTTP: what they do, who may, what is recorded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.errors import LedgerUnavailable
from gateway.ledger import AuditEntry
from tests.fakes import ScriptedEngine
from tests.gateway.api.admin.conftest import Stage
from tests.serving import scripted_gateway, serving, settings_in

CHANGES: Mapping[str, object] = {
    "disable": None,
    "enable": None,
    "expire": {"expires_seconds": 60},
    "narrow": {"models": ["chat-small"]},
    "rotate": {"grace_seconds": 60},
}


class Made:
    """A key, and calls with it; not from this machine, as far as `anonymous` can tell."""

    def __init__(self, stage: Stage, **fields: object) -> None:
        made = stage.post("keys", {"team": "search", "name": "bot", **fields})
        assert made.status_code == 201, made.text
        self.id: str = made.json()["key"]["id"]
        self.secret: str = made.json()["secret"]
        self.stage = stage

    def change(self, verb: str, body: object = None) -> httpx.Response:
        return self.stage.post(f"keys/{self.id}/{verb}", body)

    def status(self, secret: str | None = None, url: str | None = None) -> int:
        headers = {"x-api-key": secret or self.secret, "x-forwarded-for": "192.0.2.1"}
        url = url or self.stage.server.url
        return httpx.get(f"{url}/v1/models", headers=headers, timeout=20).status_code

    def models(self) -> list[str]:
        listed = with_key(self.stage, self.secret, "GET", "/v1/models").json()
        return [model["id"] for model in listed["data"]]


def with_key(stage: Stage, secret: str, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"x-api-key": secret, "x-forwarded-for": "192.0.2.1"}
    return httpx.request(method, stage.server.url + path, headers=headers, timeout=20, **options)


def test_a_disabled_key_is_refused_until_it_is_enabled(stage: Stage) -> None:
    key = Made(stage)
    before = key.status()
    disabled = key.change("disable").json()
    between = key.status()
    enabled = key.change("enable").json()

    assert [before, between, key.status()] == [200, 401, 200]
    assert (disabled["state"], enabled["state"]) == ("disabled", "active")
    assert disabled["disabled_at"] is not None
    assert enabled["disabled_at"] is None
    assert [row["id"] for row in stage.get("keys", state="disabled").json()["keys"]] == []


def test_a_key_is_given_an_end_and_relieved_of_it(stage: Stage) -> None:
    key = Made(stage)

    ending = key.change("expire", {"expires_seconds": 60}).json()
    endless = key.change("expire", {"expires_seconds": None}).json()

    assert ending["expires_at"] > ending["created_at"]
    assert endless["expires_at"] is None


def test_a_key_is_narrowed_and_the_next_call_feels_it(stage: Stage) -> None:
    key = Made(stage)
    before = key.models()
    narrowed = key.change("narrow", {"models": ["other"], "networks": ["192.0.2.0/24"]})
    elsewhere = key.status()
    back = key.change("narrow", {"models": ["other", "chat-*"]}).json()

    assert before == ["chat-small", "gpt-4o-mini"]
    assert narrowed.json()["models"] == ["other"]
    assert elsewhere == 403  # this machine is not in that network
    assert (back["models"], back["networks"]) == (["other", "chat-*"], None)
    assert key.models() == before


def test_the_secret_before_a_rotation_works_for_the_grace_that_was_asked_for(stage: Stage) -> None:
    key = Made(stage)

    first = key.change("rotate", {"grace_seconds": 3600}).json()
    too_soon = key.change("rotate", {"grace_seconds": 60})
    both = [key.status(), key.status(first["secret"])]
    last = key.change("rotate", {"grace_seconds": 0}).json()

    assert both == [200, 200]
    assert (first["key"]["id"], first["key"]["state"]) == (key.id, "active")
    assert first["key"]["previous_expires_at"] > first["key"]["rotated_at"]
    assert (too_soon.status_code, too_soon.json()["error"]["param"]) == (400, "grace_seconds")
    secrets = [key.secret, first["secret"], last["secret"]]
    assert [key.status(secret) for secret in secrets] == [401, 401, 200]


def test_every_gateway_that_shares_the_ledger_knows_of_each_change(
    stage: Stage, tmp_path: Path
) -> None:
    key = Made(stage)
    settings = settings_in(tmp_path, policy=tmp_path / "policy")
    other = scripted_gateway(settings.policy, {"scripted": ScriptedEngine()}, settings=settings)
    with serving(other) as server:

        def until(status: int) -> None:
            # Each answer that is too early takes time; tests/gateway/keys holds it to a second.
            for _ in range(2000):
                if key.status(url=server.url) == status:
                    return
            pytest.fail(f"the other gateway never answers {status}")

        until(200)
        for verb, body, status in (
            ("disable", None, 401),
            ("enable", None, 200),
            ("narrow", {"networks": ["198.51.100.0/24"]}, 403),
            ("narrow", {"networks": None}, 200),
            ("rotate", {"grace_seconds": 0}, 401),
        ):
            assert key.change(verb, body).status_code == 200
            until(status)


def test_a_rotation_has_a_grace_of_a_day_if_nothing_is_said(stage: Stage) -> None:
    key = Made(stage)

    rotated = key.change("rotate", {}).json()["key"]

    assert rotated["previous_expires_at"][:10] > rotated["rotated_at"][:10]


def test_each_change_is_recorded_once_with_before_and_after_and_without_secrets(
    stage: Stage,
) -> None:
    key = Made(stage)
    key.change("disable")
    key.change("disable")  # changes nothing
    key.change("enable")
    key.change("expire", {"expires_seconds": 60})
    key.change("narrow", {"models": ["chat-small"]})
    secret = key.change("rotate", {}).json()["secret"]

    created, *changes = stage.audit()

    assert [row["action"] for row in changes] == [
        f"keys.{verb}" for verb in ("disable", "enable", "expire", "narrow", "rotate")
    ]
    assert {row["subject"] for row in changes} == {key.id}
    for earlier, later in zip([created, *changes], changes, strict=False):
        assert later["before"] == earlier["after"] | {"last_used_at": None}
        assert later["before"] != later["after"]
    assert changes[3]["after"]["models"] == ["chat-small"]
    assert secret.split("-")[3] not in stage.get("audit").text


@pytest.mark.parametrize(("verb", "body"), CHANGES.items())
def test_a_change_that_cannot_be_recorded_is_not_made(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, verb: str, body: object
) -> None:
    key = Made(stage)
    if verb == "enable":
        key.change("disable")
    before = stage.get(f"keys/{key.id}").json()

    async def refuse(entry: AuditEntry) -> None:
        raise LedgerUnavailable

    monkeypatch.setattr(stage.gateway.ledger.audit, "append", refuse)

    assert key.change(verb, body).status_code == 503
    assert stage.get(f"keys/{key.id}").json() == before


@pytest.mark.parametrize(("verb", "body"), CHANGES.items())
def test_a_key_of_a_member_changes_no_key_not_even_itself(
    stage: Stage, verb: str, body: object
) -> None:
    member = Made(stage, team="me")
    path = f"/admin/keys/{member.id}/{verb}"

    refused = with_key(stage, member.secret, "POST", path, json=body)

    assert refused.status_code == 403
    assert "role admin" in refused.json()["error"]["message"]
    assert len(stage.audit()) == 1


@pytest.mark.parametrize(("verb", "body"), CHANGES.items())
def test_a_change_of_no_key_is_a_404_and_of_an_ended_one_a_400(
    stage: Stage, verb: str, body: object
) -> None:
    key = Made(stage)
    stage.delete(f"keys/{key.id}")

    assert stage.post(f"keys/nobody/{verb}", body).status_code == 404
    # A revoked key can be disabled too; it changes nothing that anybody could tell.
    expected = 200 if verb == "disable" else 400
    assert key.change(verb, body).status_code == expected
    assert key.status() == 401


NARROW_ADMIN = {
    "team": "me",
    "name": "deputy",
    "role": "admin",
    "models": ["chat-*"],
    "endpoints": ["openai.*", "admin.keys"],
}


def test_an_admin_puts_no_more_into_a_key_than_they_have(stage: Stage) -> None:
    deputy = Made(stage, **NARROW_ADMIN)
    wide, fitting = Made(stage, team="me"), Made(stage)

    def asked(path: str, body: object) -> tuple[int, str]:
        answer = with_key(stage, deputy.secret, "POST", f"/admin/keys{path}", json=body)
        return answer.status_code, answer.text

    widening = {"models": ["*"]}
    for path, body in (
        ("", {"team": "me", "name": "x"}),
        ("", {"team": "me", "name": "x", "role": "admin", "models": ["*"]}),
        (f"/{wide.id}/rotate", {}),
        (f"/{wide.id}/enable", None),
        (f"/{wide.id}/expire", {"expires_seconds": None}),
        (f"/{wide.id}/narrow", {"models": ["*"], "endpoints": ["openai.*"]}),
        (f"/{deputy.id}/narrow", widening),
    ):
        status, text = asked(path, body)
        assert (status, "more than yours" in text) == (403, True), (path, text)
    # What lies within their own rights they may do, and taking away they may always.
    assert asked("", {"team": "search", "name": "x"})[0] == 201
    assert asked(f"/{fitting.id}/rotate", {})[0] == 200
    assert (
        asked(f"/{wide.id}/narrow", {"models": ["chat-small"], "endpoints": ["openai.*"]})[0] == 200
    )
    assert (
        asked(f"/{deputy.id}/narrow", {"models": ["chat-x"], "endpoints": ["openai.*"]})[0] == 200
    )
    assert asked("", {"team": "search", "name": "x"})[0] == 403


def test_any_admin_may_stop_any_key(stage: Stage) -> None:
    deputy, wide = Made(stage, **NARROW_ADMIN), Made(stage, team="me")
    path = f"/admin/keys/{wide.id}"

    stopped = with_key(stage, deputy.secret, "POST", f"{path}/disable")
    ended = with_key(stage, deputy.secret, "DELETE", path)

    assert (stopped.json()["state"], ended.json()["state"]) == ("disabled", "revoked")


@pytest.mark.parametrize(
    ("verb", "body", "param"),
    [
        ("expire", {}, "expires_seconds"),
        ("expire", {"expires_seconds": 0}, "expires_seconds"),
        ("expire", {"expires_seconds": "30d"}, "expires_seconds"),
        ("narrow", {}, "models"),
        ("narrow", {"models": []}, "models"),
        ("narrow", {"networks": ["nowhere"]}, "networks"),
        ("narrow", {"limits": "bulk"}, "limits"),
        ("narrow", {"team": "me"}, "team"),
        ("rotate", {"grace_seconds": -1}, "grace_seconds"),
        ("rotate", {"grace": 0}, "grace"),
    ],
)
def test_a_change_that_cannot_be_is_refused_by_field(
    stage: Stage, verb: str, body: object, param: str
) -> None:
    key = Made(stage)

    refused = key.change(verb, body)

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert len(stage.audit()) == 1
