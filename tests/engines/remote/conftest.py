from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from engines.protocol import GenerateRequest, Message, Text, WireRequest
from engines.remote.config import RemoteConfig
from engines.remote.engine import RemoteEngine
from tests.upstream import Upstream, playing

Build = Callable[..., RemoteEngine]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with playing() as opened:
        yield opened


@pytest.fixture
async def build(upstream: Upstream) -> AsyncIterator[Build]:
    """Makes engines in front of the upstream; closes them."""
    made: list[RemoteEngine] = []

    def build(**config: object) -> RemoteEngine:
        fields = {"base_url": upstream.base_url, "refresh_seconds": 0.0} | config
        engine = RemoteEngine("up", RemoteConfig(**fields))  # type: ignore[arg-type]
        made.append(engine)
        return engine

    yield build
    for engine in made:
        await engine.close()


@pytest.fixture
async def engine(build: Build) -> RemoteEngine:
    """An engine that waits long enough for everything."""
    opened = build()
    await opened.start()
    return opened


def asking(text: str = "hi", **fields: object) -> GenerateRequest:
    """A request in our words."""
    given = {"id": "req_1-0", "model": "upstream-model"} | fields
    if "prompt" not in given:
        given.setdefault("messages", [Message(role="user", parts=[Text(text)])])
    return GenerateRequest(**given)  # type: ignore[arg-type]


def relaying(body: bytes, path: str = "chat/completions", **fields: object) -> GenerateRequest:
    """A request in its client's words."""
    headers = fields.pop("headers", {})
    wire = WireRequest(dialect="openai", method="POST", path=path, body=body, headers=headers)  # type: ignore[arg-type]
    return asking(wire=wire, **fields)
