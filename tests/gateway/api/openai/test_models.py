from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engines.errors import Unavailable
from engines.protocol import ModelInfo
from tests.fakes import ScriptedEngine
from tests.serving import scripted_gateway, serving, write_policy

FILES = {
    "gateway.toml": """
        plugins = ["anonymous", "allow_lists", "defaults", "routing"]
        [anonymous]
        team = "me"
    """,
    "engines.toml": """
        [near]
        kind = "scripted"
        [far]
        kind = "scripted"
        [ill]
        kind = "scripted"
    """,
    "models.toml": """
        [chat-small]
        aliases = ["gpt-4o-mini"]
          [[chat-small.targets]]
          engine = "near"
          model  = "small"
          [[chat-small.targets]]
          engine = "far"
          model  = "small"

        [secret]
        aliases = ["open-sounding"]
          [[secret.targets]]
          engine = "near"
          model  = "small"

        [of-the-ill]
          [[of-the-ill.targets]]
          engine = "ill"

        ["*"]
          [["*".targets]]
          engine = "far"
    """,
    "teams.toml": """
        [me]
        models    = ["*", "!secret", "!hidden*"]
        endpoints = ["*"]
    """,
    "limits.toml": "",
}


class IllEngine(ScriptedEngine):
    """Does not answer what models it has."""

    async def models(self) -> list[ModelInfo]:
        raise Unavailable("the disk is gone")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    directory = write_policy(tmp_path_factory.mktemp("models") / "policy", FILES)
    engines = {
        "near": ScriptedEngine(name="near", model_names=["small"], context_tokens=100),
        "far": ScriptedEngine(
            name="far",
            model_names=["small", "org/big:8b", "hidden-one", "ünïcode name"],
            context_tokens=80,
        ),
        "ill": IllEngine(name="ill"),
    }
    with (
        serving(scripted_gateway(directory, engines)) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        yield client


def listed(client: httpx.Client) -> dict[str, dict[str, object]]:
    return {model["id"]: model for model in client.get("/v1/models").json()["data"]}


def test_the_list_has_what_the_team_may_use_and_nothing_else(client: httpx.Client) -> None:
    assert listed(client).keys() == {
        "chat-small",
        "gpt-4o-mini",
        "of-the-ill",
        "org/big:8b",
        "small",
        "ünïcode name",
    }


def test_an_entry_says_what_helps_to_choose(client: httpx.Client) -> None:
    models = listed(client)

    # The smallest context of the targets is the one to rely on.
    assert models["chat-small"]["context_length"] == 80
    assert models["chat-small"]["kind"] == "scripted"
    assert models["gpt-4o-mini"]["alias_of"] == "chat-small"
    assert "context_length" not in models["of-the-ill"]


@pytest.mark.parametrize(
    "path",
    [
        "chat-small",
        "gpt-4o-mini",
        "org/big:8b",
        "org%2Fbig%3A8b",
        "%C3%BCn%C3%AFcode%20name",
    ],
)
def test_a_model_is_found_by_any_spelling_of_its_path(client: httpx.Client, path: str) -> None:
    response = client.get(f"/v1/models/{path}")

    assert response.status_code == 200
    assert response.json() == listed(client)[response.json()["id"]]


@pytest.mark.parametrize(
    "name",
    ["secret", "open-sounding", "hidden-one", "nobody", "org/big", "*", "chat-smal"],
)
def test_unknown_and_forbidden_models_are_the_same_404(client: httpx.Client, name: str) -> None:
    response = client.get(f"/v1/models/{name}")

    assert response.status_code == 404
    error = response.json()["error"]
    assert error["message"].replace(repr(name), "…").startswith("the model … does not exist or you")
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    asked = client.post(
        "/v1/chat/completions",
        json={"model": name, "messages": [{"role": "user", "content": "hi"}]},
    )
    assert asked.status_code == 404
    assert asked.json() == response.json()


def test_a_listed_model_of_a_wildcard_answers(client: httpx.Client) -> None:
    response = client.post(
        "/v1/chat/completions",
        json={"model": "org/big:8b", "messages": [{"role": "user", "content": "hi"}]},
    )

    assert response.status_code == 200
    assert response.json()["model"] == "org/big:8b"


def test_a_team_that_may_not_list_is_told_so(tmp_path: Path) -> None:
    files = FILES | {"teams.toml": '[me]\nmodels = ["*"]\nendpoints = ["openai.chat"]'}
    engines = {name: ScriptedEngine(name=name) for name in ("near", "far", "ill")}
    gateway = scripted_gateway(write_policy(tmp_path / "policy", files), engines)

    with serving(gateway) as server:
        for path in ("/v1/models", "/v1/models/chat-small", "/v1/models/nobody"):
            response = httpx.get(server.url + path)
            assert response.status_code == 403
            assert response.json()["error"]["code"] == "permission_denied"
