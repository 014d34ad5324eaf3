"""Other spellings of a model's name: every endpoint means the listed one, and asks about that."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.ollama_stage import OllamaStage, ollama_stage

LISTED = ["scripted-model", "t5:latest", "hf.co/Org/Repo:q4_k_m", "secret:latest"]
SECRET = ["secret", "Secret", "SECRET:latest", "secret:LATEST"]
HELLO = [{"role": "user", "content": "hi"}]
TEAMS = """
    [me]
    models    = ["*", "!secret"]
    endpoints = ["*"]
    limits    = "none"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaStage]:
    directory = tmp_path_factory.mktemp("spellings")
    with ollama_stage(directory, files={"teams.toml": TEAMS}) as stage:
        yield stage


@pytest.fixture
def stage(served: OllamaStage) -> OllamaStage:
    served.reset()
    served.library.names[:] = LISTED
    return served


def asked(stage: OllamaStage, name: str) -> dict[str, int]:
    """The status of each way to ask for a model without changing it."""
    bodies: dict[str, tuple[str, str, Any]] = {
        "chat": ("POST", "/api/chat", {"model": name, "messages": HELLO, "stream": False}),
        "generate": ("POST", "/api/generate", {"model": name, "prompt": "x", "stream": False}),
        "embed": ("POST", "/api/embed", {"model": name, "input": "x"}),
        "load": ("POST", "/api/generate", {"model": name}),
        "unload": ("POST", "/api/generate", {"model": name, "keep_alive": 0}),
        "show": ("POST", "/api/show", {"model": name}),
        "openai chat": ("POST", "/v1/chat/completions", {"model": name, "messages": HELLO}),
        "openai embeddings": ("POST", "/v1/embeddings", {"model": name, "input": "x"}),
        "openai model": ("GET", f"/v1/models/{name}", None),
    }
    return {
        way: stage.client.request(method, path, json=body).status_code
        for way, (method, path, body) in bodies.items()
    }


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("t5", "t5:latest"),
        ("T5", "t5:latest"),
        ("T5:Latest", "t5:latest"),
        ("hf.co/Org/Repo:Q4_K_M", "hf.co/Org/Repo:q4_k_m"),
        ("HF.co/org/repo:q4_k_m", "hf.co/Org/Repo:q4_k_m"),
    ],
)
def test_every_endpoint_means_the_listed_model(stage: OllamaStage, name: str, listed: str) -> None:
    assert set(asked(stage, name).values()) == {200}
    answered = {request.model for request in stage.library.requests}
    assert answered == {listed} or answered == {listed.removesuffix(":latest")}


@pytest.mark.parametrize("name", SECRET)
def test_what_is_denied_is_denied_in_every_spelling(stage: OllamaStage, name: str) -> None:
    assert set(asked(stage, name).values()) == {404}
    for method, path, body in (
        ("DELETE", "/api/delete", {"model": name}),
        ("POST", "/api/pull", {"model": name, "stream": False}),
        ("POST", "/api/push", {"model": name, "stream": False}),
        ("POST", "/api/copy", {"source": name, "destination": "mine"}),
        ("POST", "/api/copy", {"source": "t5", "destination": name}),
        ("POST", "/api/create", {"model": name, "from": "t5", "stream": False}),
        ("POST", "/api/create", {"model": "mine", "from": name, "stream": False}),
    ):
        assert stage.client.request(method, path, json=body).status_code == 404, path

    assert stage.library.jobs == []
    assert stage.library.requests == []
    assert stage.library.names == LISTED


def test_what_changes_a_model_changes_the_listed_one(stage: OllamaStage) -> None:
    stage.client.request("DELETE", "/api/delete", json={"model": "T5"}).raise_for_status()
    stage.ask("pull", model="hf.co/org/repo:Q4_K_M").raise_for_status()
    stage.ask("copy", source="HF.CO/Org/Repo:q4_k_m", destination="mine").raise_for_status()

    assert stage.library.jobs == [
        ("delete", "t5"),
        ("pull", "hf.co/Org/Repo:q4_k_m"),
        ("copy", "hf.co/Org/Repo:q4_k_m", "mine"),
    ]


def test_a_model_that_came_back_in_another_case_is_found(stage: OllamaStage) -> None:
    assert asked(stage, "t5")["chat"] == 200
    stage.client.request("DELETE", "/api/delete", json={"model": "t5"}).raise_for_status()
    assert asked(stage, "t5")["chat"] == 404
    stage.ask("pull", model="T5").raise_for_status()

    assert asked(stage, "t5")["chat"] == asked(stage, "T5")["chat"] == 200


def test_names_of_the_policy_are_exact(stage: OllamaStage) -> None:
    assert asked(stage, "chat-small")["chat"] == 200
    assert asked(stage, "Chat-Small")["chat"] == 404
