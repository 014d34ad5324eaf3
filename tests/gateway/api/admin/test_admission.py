"""Who gets into the admin API, and what happens to a question that is not understood."""

import re
from collections.abc import Iterator

import httpx
import pytest

from gateway import Call, Principal, hookimpl
from gateway.api import HANDLERS
from gateway.hooks import Hooks
from tests.fakes import ScriptedEngine
from tests.serving import Server, scripted_gateway, serving, write_policy

ROUTES = sorted(
    (method, re.sub(r"{\w+:str}", "one", path))
    for handler in HANDLERS
    for path in handler.paths
    for method in handler.http_methods
    if path.startswith("/admin/") and method not in ("HEAD", "OPTIONS") and path != "/admin/models"
)  # fmt: skip

ADMIN = {"x-team": "platform", "x-role": "admin"}


class Claims:
    """Believes whoever says in a header which team and role they are."""

    @hookimpl
    async def identify(self, call: Call, headers: dict[str, str]) -> Principal | None:
        if "x-team" not in headers:
            return None
        return Principal(name="tester", team=headers["x-team"], key_id="k1", role=headers["x-role"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    teams = """
    [platform]
    models = ["*"]
    endpoints = ["*"]
    [apps]
    models = ["*"]
    endpoints = ["openai.*"]
    """
    directory = write_policy(
        tmp_path_factory.mktemp("admin") / "policy",
        {"teams.toml": teams, "gateway.toml": 'plugins = ["api_keys", "allow_lists", "routing"]'},
    )
    gateway = scripted_gateway(directory, {"scripted": ScriptedEngine()})
    gateway.hooks = Hooks([("claims", Claims()), *gateway.hooks.plugins.items()])
    with serving(gateway) as server:
        yield server


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_wants_a_known_caller_a_team_that_may_and_the_role(
    server: Server, method: str, path: str
) -> None:
    def status(team: str | None, role: str = "") -> int:
        headers = {} if team is None else {"x-team": team, "x-role": role}
        return httpx.request(method, server.url + path, headers=headers, timeout=20).status_code

    assert status(None) == 401
    assert status("platform", "member") == 403
    assert status("platform", "Admin") == 403
    assert status("apps", "admin") == 403
    assert status("platform", "admin") not in (401, 403, 500)


def test_the_routes_are_those_of_the_api() -> None:
    assert len(ROUTES) == 23


def test_nothing_but_the_role_makes_an_admin() -> None:
    for name in ("anonymous", "admin"):
        assert not Principal(name=name, team="admin").is_admin
    assert Principal(name="laptop", team="apps", role="admin").is_admin


def test_a_refusal_has_the_houses_shape_and_names_the_role(server: Server) -> None:
    headers = {"x-team": "platform", "x-role": "member"}

    refused = httpx.get(f"{server.url}/admin/keys", headers=headers, timeout=20)

    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], "role admin" in error["message"]) == ("permission_error", True)


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("keys", "limt=3", 'did you mean "limit"'),
        ("keys", "limit=3&limit=4", "given twice"),
        ("keys", "limit=0", "limit"),
        ("keys", "limit=1001", "limit"),
        ("keys", "limit=many", "limit"),
        ("keys", "state=gone", "state"),
        ("keys", "after=nobody", "no key 'nobody'"),
        ("usage", "by=tem", 'did you mean "team"'),
        ("usage", "by=team,team", "twice"),
        ("usage", "by=call,team", "stands alone"),
        ("usage", "from=yesterday", "2026-03-01"),
        ("usage", "to=2026-02-30", "2026-03-01"),
        ("usage", "format=xml", "format"),
        ("usage", "offset=-1", "offset"),
        ("usage", "team=%00", "'team' has a NUL"),
        ("calls", "limit=x", "limit"),
        ("audit", "before=0", "before"),
        ("audit/verification", "seq=3", "send both"),
        ("audit/verification", "seq=3&hash=abc", "hash"),
        ("policy", "x=1", "unknown parameter 'x'"),
        ("policy/explain", "team=me", "endpoint"),
        ("teams", "x=1", "unknown parameter 'x'"),
        ("targets", "x=1", "unknown parameter 'x'"),
    ],
)
def test_a_question_that_is_not_understood_is_a_400_that_says_why(
    server: Server, path: str, query: str, message: str
) -> None:
    refused = httpx.get(f"{server.url}/admin/{path}?{query}", headers=ADMIN, timeout=20)

    assert refused.status_code == 400, refused.text
    assert message in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    "value", ["' OR 1=1 --", "%", "x" * 5000, "{{7*7}}", "../../etc/passwd", "\u202e"]
)
@pytest.mark.parametrize("name", ["team", "key", "model", "principal", "outcome"])
def test_what_a_filter_is_called_with_is_data(server: Server, name: str, value: str) -> None:
    def rows(path: str, **query: str) -> list[object]:
        found = httpx.get(f"{server.url}/admin/{path}", params=query, headers=ADMIN, timeout=20)
        assert found.status_code == 200, found.text
        return found.json()["rows"]

    assert rows("usage", by="team", **{name: value}) == []
    assert rows("audit", subject=value) == []


def test_no_answer_is_kept_by_a_browser_or_a_proxy(server: Server) -> None:
    for path in ("keys", "teams", "usage", "calls", "audit", "policy", "targets"):
        answer = httpx.get(f"{server.url}/admin/{path}", headers=ADMIN, timeout=20)
        assert answer.headers["cache-control"] == "no-store"
