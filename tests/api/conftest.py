from collections.abc import Iterator

import httpx
import pytest

from engines.protocol import GenerateRequest
from tests.api.ollama_stage import OllamaStage, ollama_stage
from tests.fakes import Script, ScriptedEngine, Step
from tests.serving import Server, scripted_gateway, serving, write_policy


class Stage:
    """A served gateway whose engine plays what the test puts on."""

    def __init__(self) -> None:
        self.script: Script = ("hello", " there")
        self.engine = ScriptedEngine(self._play)
        self.server: Server
        self.client: httpx.Client

    def _play(self, request: GenerateRequest) -> list[Step]:
        return list(self.script(request) if callable(self.script) else self.script)

    @property
    def last_request(self) -> GenerateRequest:
        return self.engine.requests[-1]

    def chat(self, **fields: object) -> httpx.Response:
        """POST a chat request: a small one with these fields on top."""
        body = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}
        return self.client.post("/v1/chat/completions", json=body | fields)

    def complete(self, **fields: object) -> httpx.Response:
        body = {"model": "chat-small", "prompt": "once upon a time"}
        return self.client.post("/v1/completions", json=body | fields)

    def embed(self, **fields: object) -> httpx.Response:
        body = {"model": "chat-small", "input": "one two"}
        return self.client.post("/v1/embeddings", json=body | fields)


@pytest.fixture(scope="session")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage()
    directory = write_policy(tmp_path_factory.mktemp("api") / "policy")
    with serving(scripted_gateway(directory, {"scripted": stage.engine})) as server:
        stage.server = server
        with httpx.Client(base_url=server.url, timeout=20) as client:
            stage.client = client
            yield stage


@pytest.fixture
def stage(_stage: Stage) -> Stage:
    """The served gateway, with nothing played on it yet."""
    _stage.script = ("hello", " there")
    _stage.engine.requests.clear()
    _stage.engine.embed_requests.clear()
    _stage.engine.num_closed_early = 0
    return _stage


@pytest.fixture(scope="session")
def _ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OllamaStage]:
    with ollama_stage(tmp_path_factory.mktemp("ollama")) as stage:
        yield stage


@pytest.fixture
def ollama(_ollama: OllamaStage) -> OllamaStage:
    """The same for Ollama's dialect, with an engine that keeps models."""
    _ollama.reset()
    return _ollama
