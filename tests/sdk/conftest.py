"""Where the official clients are pointed at: a gateway with a script, and the real thing."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.protocol import GenerateRequest, ToolCallDelta
from gateway.gateway import open_gateway
from gateway.keys import PREFIX
from tests.fakes import ScriptedEngine, Step
from tests.serving import scripted_gateway, serving, settings_in, write_policy

DEV = Path(__file__).parents[2] / "policies" / "dev"


@dataclass(frozen=True)
class Place:
    """A served gateway, as a client's settings know it."""

    base_url: str
    model: str
    alias: str
    api_key: str = "unused"  # what a client that needs none sends
    bad_key: str = f"{PREFIX}-0000-0000"
    kind: str = "scripted"


def _answer(request: GenerateRequest) -> Sequence[Step]:
    """What the starter model says to the same prompts."""
    if request.tools and request.messages[-1].role == "user":
        return [
            ToolCallDelta(index=0, id="call_1", name="get_weather"),
            ToolCallDelta(index=0, arguments='{"city": '),
            ToolCallDelta(index=0, arguments='"Oslo"}'),
        ]
    if request.constraint is not None:
        return ['{"name": "Ada"', ', "age": 36}']
    if request.messages and "Count" in request.messages[-1].text:
        return [*(f"{number}, " for number in range(1, 20)), "20"]
    return ["The capital", " of France", " is", " Paris", "."]


@contextmanager
def _scripted(directory: Path) -> Iterator[Place]:
    files = {
        "gateway.toml": """
            plugins = ["api_keys", "anonymous", "allow_lists", "defaults", "routing"]
            [anonymous]
            team = "me"
        """
    }
    engines = {"scripted": ScriptedEngine(_answer)}
    with serving(scripted_gateway(write_policy(directory / "policy", files), engines)) as server:
        yield Place(f"{server.url}/v1", "chat-small", "gpt-4o-mini")


@contextmanager
def _starter(directory: Path) -> Iterator[Place]:
    """What `make serve` serves: policies/dev, the gguf engine and the starter model."""
    settings = settings_in(directory, policy=DEV)
    with serving(open_gateway(settings)) as server:
        yield Place(f"{server.url}/v1", "starter", "gpt-4o-mini", kind="gguf")


@contextmanager
def _paged(directory: Path) -> Iterator[Place]:
    """The same as `_starter` with one line of the policy changed."""
    policy = directory / "policy"
    shutil.copytree(DEV, policy)
    engines = policy / "engines.toml"
    written = engines.read_text()
    assert written.count('kind = "gguf"') == 1
    engines.write_text(written.replace('kind = "gguf"', 'kind = "paged"'))
    with serving(open_gateway(settings_in(directory, policy=policy))) as server:
        yield Place(f"{server.url}/v1", "starter", "gpt-4o-mini", kind="paged")


@contextmanager
def _remote(directory: Path) -> Iterator[Place]:
    """A gateway whose only engine is another gateway, which has the starter model."""
    upstream_directory = directory / "upstream"
    upstream_directory.mkdir()
    with _starter(upstream_directory) as upstream:
        files = {
            "gateway.toml": """
                plugins = ["api_keys", "anonymous", "allow_lists", "defaults", "routing",
                           "remote_engine"]
                [anonymous]
                team = "me"
            """,
            "engines.toml": f'[up]\nkind = "remote"\nbase_url = "{upstream.base_url}"',
            "models.toml": """
                [chat-small]
                aliases = ["gpt-4o-mini"]
                  [[chat-small.targets]]
                  engine = "up"
                  model  = "starter"
            """,
        }
        settings = settings_in(directory, policy=write_policy(directory / "policy", files))
        with serving(open_gateway(settings)) as server:
            yield Place(f"{server.url}/v1", "chat-small", "gpt-4o-mini", kind="gguf")


@pytest.fixture(
    scope="session",
    params=[_scripted, _starter, _paged, _remote],
    ids=["scripted", "starter", "paged", "remote"],
)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Each gateway in turn."""
    with request.param(tmp_path_factory.mktemp("sdk")) as place:
        yield place
