"""Where the official clients are pointed at: a gateway with a script, and the real thing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from engines.protocol import GenerateRequest, ToolCallDelta
from gateway.keys import PREFIX
from tests.fakes import ScriptedEngine, Step
from tests.serving import scripted_gateway, serving, write_policy


@dataclass(frozen=True)
class Place:
    """A served gateway, as a client's settings know it."""

    base_url: str
    model: str
    alias: str
    api_key: str = "unused"  # what a client that needs none sends
    bad_key: str = f"{PREFIX}-0000-0000"


def _answer(request: GenerateRequest) -> Sequence[Step]:
    """What the starter model says to the same prompts."""
    if request.tools:
        return [
            ToolCallDelta(index=0, id="call_1", name="get_weather"),
            ToolCallDelta(index=0, arguments='{"city": '),
            ToolCallDelta(index=0, arguments='"Oslo"}'),
        ]
    if request.constraint is not None:
        return ['{"name": "Ada"', ', "age": 36}']
    return ["The capital", " of France", " is", " Paris", "."]


@pytest.fixture(scope="session", params=["scripted"])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """Each gateway in turn."""
    files = {
        "gateway.toml": """
            plugins = ["api_keys", "anonymous", "allow_lists", "defaults", "routing"]
            [anonymous]
            team = "me"
        """
    }
    directory = write_policy(tmp_path_factory.mktemp("sdk") / "policy", files)
    with serving(scripted_gateway(directory, {"scripted": ScriptedEngine(_answer)})) as server:
        yield Place(f"{server.url}/v1", "chat-small", "gpt-4o-mini")
