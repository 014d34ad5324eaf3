"""Who may do what in Ollama's dialect under the policies that ship, and on which port."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import app_of
from gateway.endpoints import needs_admin
from gateway.gateway import open_gateway
from gateway.keys import Keys, open_pepper
from gateway.ledger import open_ledger
from gateway.settings import Settings
from tests.api.ollama_stage import OllamaStage, ollama_stage
from tests.security.gate import Gate, open_gate
from tests.serving import serving, settings_in

POLICIES = Path(__file__).parents[4] / "policies"
ASK = {"model": "starter", "prompt": "hi", "stream": False}


@contextmanager
def served(directory: Path, policy: str) -> Iterator[tuple[str, Settings]]:
    settings = settings_in(directory, policy=POLICIES / policy)
    with serving(open_gateway(settings)) as server:
        yield server.url, settings


def key_of(settings: Settings, team: str, role: str) -> dict[str, str]:
    async def made() -> str:
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            return (await keys.create(team, "a key", role=role)).secret  # type: ignore[arg-type]

    return {"authorization": f"Bearer {asyncio.run(made())}"}


def statuses(url: str, headers: dict[str, str]) -> tuple[int, int, int]:
    """Of an inference, of looking at models, and of managing them."""
    return (
        httpx.post(f"{url}/api/generate", json=ASK, headers=headers, timeout=60).status_code,
        httpx.get(f"{url}/api/tags", headers=headers).status_code,
        httpx.request(
            "DELETE", f"{url}/api/delete", json={"model": "x"}, headers=headers
        ).status_code,
    )


def test_in_development_whoever_works_here_may_do_it_all(tmp_path: Path) -> None:
    with served(tmp_path, "dev") as (url, _):
        assert statuses(url, {}) == (200, 200, 404)
        # Not so who comes from elsewhere.
        assert statuses(url, {"x-forwarded-for": "192.0.2.1"}) == (401, 401, 401)


def test_in_production_a_key_is_needed_and_the_role_to_manage(tmp_path: Path) -> None:
    with served(tmp_path, "prod") as (url, settings):
        assert statuses(url, {}) == (401, 401, 401)
        assert statuses(url, key_of(settings, "batch", "member")) == (403, 403, 403)
        assert statuses(url, key_of(settings, "apps", "member")) == (200, 200, 403)
        assert statuses(url, key_of(settings, "platform", "member")) == (200, 200, 403)
        assert statuses(url, key_of(settings, "platform", "admin")) == (200, 200, 404)


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with open_gate(tmp_path_factory.mktemp("gate")) as gate:
        yield gate


def test_lists_show_what_the_caller_may_use(gate: Gate) -> None:
    def names(key: str) -> set[str]:
        found = gate.ask("GET", "/api/tags", key)
        assert found.status_code == 200, found.text
        return {model["name"] for model in found.json()["models"]}

    assert names(gate.key("platform")) == {
        "chat-small", "gpt-4o-mini", "chat-secret", "chat-alias", "wild-one",
    }  # fmt: skip
    assert names(gate.key("platform", models=["chat-small"])) == {"chat-small", "gpt-4o-mini"}


def test_a_model_of_others_is_one_that_does_not_exist(gate: Gate) -> None:
    key = gate.key("platform", models=["chat-small"])
    for name in ("chat-secret", "chat-alias", "chat-secret:latest", "no-such"):
        for path, more in (
            ("show", {}),
            ("generate", {"prompt": "hi"}),
            ("generate", {}),
            ("chat", {"think": True, "messages": [{"role": "user", "content": "hi"}]}),
            ("embed", {"input": "hi"}),
        ):
            answer = gate.ask("POST", f"/api/{path}", key, json={"model": name, **more})
            assert answer.status_code == 404, (name, path)
            assert answer.json() == {"error": f"model '{name}' not found"}

    assert gate.ask("POST", "/api/show", key, json={"model": "chat-small"}).status_code == 200


def test_with_a_port_for_admins_managing_is_only_there(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, policy=POLICIES / "dev", admin_port=9090)
    both: Any = app_of(open_gateway(settings))

    def endpoints(app: Any) -> set[str]:
        return {
            handler.opt.get("endpoint") or handler.name
            for route in app.routes
            for method, (handler, _) in route.route_handler_map.items()
            if method != "OPTIONS"
        }

    public, admin = endpoints(both._public), endpoints(both._admin)
    assert {"ollama.chat", "ollama.tags", "ollama.version"} <= public
    assert {"ollama.pull", "ollama.blobs", "ollama.delete"} <= admin
    assert not [name for name in public if needs_admin(name)]


def test_a_call_is_logged_and_counted_like_any_other(tmp_path: Path) -> None:
    with ollama_stage(tmp_path) as stage:
        seen = _calls_seen(stage)

    assert seen == ("ollama.chat", "chat-small", "shelf", "me")


def _calls_seen(stage: OllamaStage) -> tuple[str, str, str, str]:
    found: list[tuple[str, str, str, str]] = []
    end_call = stage.server.gateway.end_call

    def noted(call: Any) -> None:
        found.append((call.endpoint, call.model.name, call.target.engine, call.principal.team))
        assert call.usage.completion_tokens == 2
        end_call(call)

    stage.server.run(lambda: setattr(stage.server.gateway, "end_call", noted))
    stage.chat()
    stage.server.wait_until(lambda: bool(found))
    return found[0]
