"""A served gateway whose engine keeps models, as Ollama's clients see it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from engines.protocol import GenerateRequest
from tests.fake_library import ABLE, MODELS, FakeLibrary
from tests.fakes import Script, ScriptedEngine, Step
from tests.serving import Server, scripted_gateway, serving, settings_in, write_policy

PLUGINS = """
    plugins = ["api_keys", "anonymous", "allow_lists", "defaults", "routing"]
    [anonymous]
    team = "me"
"""


class OllamaStage:
    """What a test plays on, and how it asks."""

    def __init__(self) -> None:
        self.script: Script = ("hello", " there")
        self.library = FakeLibrary(self._play, name="shelf")
        self.bare = ScriptedEngine(name="bare")
        self.server: Server
        self.client: httpx.Client
        self.directory: Path

    def _play(self, request: GenerateRequest) -> list[Step]:
        return list(self.script(request) if callable(self.script) else self.script)

    def reset(self) -> None:
        self.script = ("hello", " there")
        self.library.requests.clear()
        self.library.embed_requests.clear()
        self.library.jobs.clear()
        self.library.kept_alive.clear()
        self.library.pull_steps.clear()
        self.library.blobs.clear()
        self.library.loaded.clear()
        self.library.names[:] = ["scripted-model"]
        self.library.expires_at = None
        self.library.able = ABLE
        self.library.max_embed_tokens = 10_000
        self.library.num_ended_early = self.library.num_closed_early = 0
        gateway = self.server.gateway
        self.server.run(lambda: setattr(gateway, "model_infos", type(gateway.model_infos)()))
        self.server.run(gateway.serving.listed_names.forget)

    @property
    def last_request(self) -> GenerateRequest:
        return self.library.requests[-1]

    def ask(self, path: str, **body: Any) -> httpx.Response:
        """POST a body to /api/…, not streamed unless it says so."""
        return self.client.post(f"/api/{path}", json={"stream": False, **body})

    def chat(self, **fields: Any) -> httpx.Response:
        messages = [{"role": "user", "content": "hi"}]
        return self.ask("chat", **{"model": "chat-small", "messages": messages, **fields})

    def generate(self, **fields: Any) -> httpx.Response:
        return self.ask("generate", **{"model": "chat-small", "prompt": "hi", **fields})


@contextmanager
def ollama_stage(
    directory: Path,
    *,
    role: str = "admin",
    files: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[OllamaStage]:
    """Serve until the block ends; `role` is that of callers on this machine."""
    stage = OllamaStage()
    files = {**MODELS, "gateway.toml": f'{PLUGINS}role = "{role}"', **(files or {})}
    gateway = scripted_gateway(
        write_policy(directory / "policy", files),
        {"shelf": stage.library, "bare": stage.bare},
        settings=settings_in(directory, **settings),
    )
    stage.directory = directory
    with serving(gateway) as server, httpx.Client(base_url=server.url, timeout=20) as client:
        stage.server, stage.client = server, client
        yield stage
