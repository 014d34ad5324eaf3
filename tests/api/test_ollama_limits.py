"""Ollama's dialect under limits, an administrator's hand, and engines that both keep models."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fake_library import MODELS, FakeLibrary
from tests.fakes import Hold, ScriptedEngine
from tests.serving import Server, scripted_gateway, serving, write_policy

GATEWAY = """
    plugins = ["anonymous", "allow_lists", "defaults", "routing", "rate_limits"]
    [anonymous]
    team = "me"
    role = "admin"
"""
ASK = {"model": "chat-small", "messages": [{"role": "user", "content": "one two three"}]}


def served(directory: Path, engine: ScriptedEngine, **files: str) -> "Iterator[Server]":
    given = {f"{name}.toml": text for name, text in files.items()}
    policy = write_policy(directory / "policy", {**MODELS, "gateway.toml": GATEWAY, **given})
    engines = {"shelf": engine, "bare": FakeLibrary(name="bare")}
    with serving(scripted_gateway(policy, engines)) as server:
        yield server


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Server]:
    limits = "[none]\nrequests_per_minute = 2\nmax_output_tokens = 1"
    yield from served(tmp_path, FakeLibrary(), limits=limits)


def test_requests_count_loads_too_and_a_429_says_when(limited: Server) -> None:
    loaded = httpx.post(f"{limited.url}/api/chat", json={"model": "chat-small"})
    answered = httpx.post(f"{limited.url}/api/chat", json={**ASK, "stream": False})
    refused = httpx.post(f"{limited.url}/api/embed", json={"model": "chat-small", "input": "a"})

    assert (loaded.status_code, answered.status_code) == (200, 200)
    assert answered.json()["message"]["content"] == "hello"
    assert answered.json()["done_reason"] == "length"
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "requests" in refused.json()["error"]


def test_looking_at_models_costs_nothing(limited: Server) -> None:
    for _ in range(5):
        assert httpx.get(f"{limited.url}/api/tags").status_code == 200
        shown = httpx.post(f"{limited.url}/api/show", json={"model": "chat-small"})
        assert shown.status_code == 200


def test_a_call_that_is_ended_from_outside_is_told_in_a_line(tmp_path: Path) -> None:
    engine = FakeLibrary(["one", Hold()])
    for server in served(tmp_path, engine):
        lines: list[str] = []
        first = threading.Event()

        def talk(
            url: str = server.url, lines: list[str] = lines, first: threading.Event = first
        ) -> None:
            with httpx.stream("POST", f"{url}/api/chat", json=ASK, timeout=30) as answer:
                for line in answer.iter_lines():
                    lines.append(line)
                    first.set()

        talking = threading.Thread(target=talk)
        talking.start()
        assert first.wait(20)
        calls = httpx.get(f"{server.url}/admin/calls").json()["calls"]
        (running,) = [call["id"] for call in calls if call["endpoint"] == "ollama.chat"]
        assert httpx.delete(f"{server.url}/admin/calls/{running}").status_code == 200
        talking.join(20)

        assert len(lines) == 2
        assert json.loads(lines[1]) == {"error": "the call was ended by whoever runs this gateway"}


def test_of_two_engines_that_keep_models_the_policy_says_which(tmp_path: Path) -> None:
    shelf = FakeLibrary(name="shelf")
    models = MODELS["models.toml"].partition('["*"]')[0]
    for server in served(tmp_path, shelf, models=models):
        unsure = httpx.post(f"{server.url}/api/pull", json={"model": "new"})
        named = httpx.post(f"{server.url}/api/pull", json={"model": "chat-small", "stream": False})
        across = httpx.post(
            f"{server.url}/api/copy", json={"source": "chat-small", "destination": "bare"}
        )

        assert unsure.status_code == 400
        assert "several engines keep model files (bare, shelf)" in unsure.json()["error"]
        assert named.json() == {"status": "success"}
        assert shelf.jobs == [("pull", "scripted-model")]
        assert across.status_code == 400
        assert "is a model of shelf, and 'bare' would be one of bare" in across.json()["error"]


def test_a_pull_that_nobody_can_ask_for_says_so(tmp_path: Path) -> None:
    models = """
        [chat-small]
          [[chat-small.targets]]
          engine = "shelf"
          model  = "scripted-model"
    """
    engines = '[shelf]\nkind = "scripted"'
    policy = write_policy(
        tmp_path / "policy",
        {"models.toml": models, "engines.toml": engines, "gateway.toml": GATEWAY},
    )
    with serving(scripted_gateway(policy, {"shelf": FakeLibrary()})) as server:
        lines = httpx.post(f"{server.url}/api/pull", json={"model": "new"}).text.splitlines()

    assert [json.loads(line)["status"] for line in lines[-2:]] == [
        "models.toml has no name that leads to 'new'",
        "success",
    ]
