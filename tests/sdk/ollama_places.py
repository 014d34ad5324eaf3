"""Where Ollama's clients are pointed at: a gateway with a script, and the real thing."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines.protocol import GenerateRequest, ToolCallDelta
from gateway.gateway import open_gateway
from tests.docker_registry import docker_registry
from tests.fake_library import MODELS, FakeLibrary
from tests.fakes import ScriptedEngine, Step
from tests.serving import scripted_gateway, serving, settings_in, write_policy

DEV = Path(__file__).parents[2] / "policies" / "dev"
WEIGHTS = Path(__file__).parents[2] / "engines" / "starter" / "starter.gguf"


@dataclass(frozen=True)
class OllamaPlace:
    """A served gateway, as a client's settings know it."""

    host: str
    model: str
    registry: str  # what the names of models begin with that may be pushed
    weights: Path  # a file to make a model of
    kind: str


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
    said = request.messages[-1].text if request.messages else ""
    if "Count" in said:
        return [*(f"{number}, " for number in range(1, 20)), "20"]
    if "my name" in said:
        return ["Your name", " is Ada."]
    return ["The capital", " of France", " is", " Paris", "."]


@contextmanager
def scripted(directory: Path) -> Iterator[OllamaPlace]:
    """Models that are a script, and a library in memory."""
    files = {
        **MODELS,
        "gateway.toml": """
            plugins = ["api_keys", "anonymous", "allow_lists", "defaults", "routing"]
            [anonymous]
            team = "me"
            role = "admin"
        """,
    }
    engines = {"shelf": FakeLibrary(_answer, name="shelf"), "bare": ScriptedEngine(name="bare")}
    weights = directory / "model.gguf"
    weights.write_bytes(b"GGUF and so on")
    with serving(scripted_gateway(write_policy(directory / "policy", files), engines)) as server:
        yield OllamaPlace(server.url, "chat-small", "registry.test/lib", weights, "scripted")


@contextmanager
def starter(directory: Path) -> Iterator[OllamaPlace]:
    """What `penstock serve` serves: policies/dev and the starter model; and a real registry."""
    weights = directory / "model.gguf"
    shutil.copyfile(WEIGHTS, weights)
    settings = settings_in(directory, policy=DEV)
    with docker_registry() as registry, serving(open_gateway(settings)) as server:
        yield OllamaPlace(server.url, "starter", f"{registry.host}/lib", weights, "gguf")


PLACES = {"scripted": scripted, "starter": starter}
