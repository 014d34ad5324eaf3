import httpx
import pytest

from gateway.errors import LedgerUnavailable
from gateway.keys.text import parsed
from gateway.ledger import AuditEntry
from tests.gateway.api.admin.conftest import Stage


def test_a_key_is_made_used_and_revoked(stage: Stage) -> None:
    made = stage.post("keys", {"team": "search", "name": "bot", "expires_seconds": 3600})
    key, secret = made.json()["key"], made.json()["secret"]
    headers = {"x-api-key": secret, "x-forwarded-for": "192.0.2.1"}
    used = httpx.get(f"{stage.server.url}/v1/models", headers=headers, timeout=20)
    revoked = stage.delete(f"keys/{key['id']}")
    after = httpx.get(f"{stage.server.url}/v1/models", headers=headers, timeout=20)

    assert (made.status_code, used.status_code) == (201, 200)
    assert (key["team"], key["name"], key["state"]) == ("search", "bot", "active")
    assert key["expires_at"] > key["created_at"]
    assert revoked.json()["state"] == "revoked"
    assert after.status_code == 401
    assert stage.get(f"keys/{key['id']}").json() == revoked.json() | {
        "last_used_at": stage.get(f"keys/{key['id']}").json()["last_used_at"]
    }


def test_the_secret_is_in_the_first_answer_and_nowhere_else(stage: Stage) -> None:
    made = stage.post("keys", {"team": "search", "name": "bot"}).json()
    claim = parsed(made["secret"])
    assert claim is not None

    elsewhere = stage.get("keys").text + stage.get("audit").text

    assert claim.id in elsewhere
    assert claim.secret not in elsewhere
    assert "digest" not in elsewhere


def test_each_change_is_in_the_audit_log_with_before_and_after(stage: Stage) -> None:
    key_id = stage.post("keys", {"team": "search", "name": "bot"}).json()["key"]["id"]
    for _ in range(2):
        stage.delete(f"keys/{key_id}")

    created, revoked = stage.audit()

    assert (created["action"], created["subject"]) == ("keys.create", key_id)
    assert (created["before"], created["after"]["state"]) == (None, "active")
    assert (revoked["action"], revoked["subject"]) == ("keys.revoke", key_id)
    assert (revoked["before"]["state"], revoked["after"]["state"]) == ("active", "revoked")
    assert (created["principal"], created["team"]) == ("anonymous", "me")
    assert created["client"] == "127.0.0.1"
    assert created["call_id"].startswith("req_")


def test_a_key_whose_making_cannot_be_recorded_is_not_made(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(entry: AuditEntry) -> None:
        raise LedgerUnavailable

    monkeypatch.setattr(stage.gateway.ledger.audit, "append", refuse)

    refused = stage.post("keys", {"team": "search", "name": "bot"})

    assert refused.status_code == 503
    assert stage.get("keys").json()["keys"] == []


def test_pages_and_filters_give_every_key_once(stage: Stage) -> None:
    ids = [
        stage.post("keys", {"team": team, "name": f"{team}{number}"}).json()["key"]["id"]
        for number in range(3)
        for team in ("search", "me")
    ]
    stage.delete(f"keys/{ids[0]}")

    first = stage.get("keys", limit=4).json()
    second = stage.get("keys", limit=4, after=first["next"]).json()

    assert [key["id"] for key in first["keys"] + second["keys"]] == ids
    assert second["next"] is None
    active = stage.get("keys", team="search", state="active").json()["keys"]
    assert [key["id"] for key in active] == ids[2::2]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"team": "serch", "name": "x"}, "team"),
        ({"team": "search"}, "name"),
        ({"team": "search", "name": " "}, "name"),
        ({"team": "search", "name": "a\nb"}, "name"),
        ({"team": "search", "name": "x", "expires_seconds": 0}, "expires_seconds"),
        ({"team": "search", "name": "x", "role": "root"}, "role"),
        ({"team": "search", "name": "x", "models": ["!chat-secret"]}, "models"),
        ({"team": "search", "name": "x", "models": []}, "models"),
        ({"team": "search", "name": "x", "networks": ["10.0.0.0/33"]}, "networks"),
        ({"team": "search", "name": "x", "limits": "bulk"}, "limits"),
        ({"team": "search", "name": "x", "id": "mine"}, "id"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_field(
    stage: Stage, body: dict[str, object], param: str
) -> None:
    refused = stage.post("keys", body)

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert stage.get("keys").json()["keys"] == []
    assert stage.audit() == []


@pytest.mark.parametrize("key_id", ["nobody", "%00", "' OR '1'='1"])
def test_a_key_that_is_not_there_is_a_404(stage: Stage, key_id: str) -> None:
    assert stage.client.get(f"/admin/keys/{key_id}").status_code == 404
    assert stage.client.delete(f"/admin/keys/{key_id}").status_code == 404
    assert stage.audit() == []


def test_a_body_that_a_web_page_could_send_unasked_is_not_read(stage: Stage) -> None:
    body = '{"team": "search", "name": "x"}'

    refused = stage.client.post("/admin/keys", content=body, headers={"content-type": "text/plain"})

    assert refused.status_code == 415
