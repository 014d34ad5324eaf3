import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing

import pytest

from engines.protocol import Event, GenerateRequest, Message, Text
from engines.remote.config import RemoteConfig
from engines.remote.engine import RemoteEngine
from engines.remote.upstream import Question
from engines.remote.upstream import Upstream as Client
from engines.wire import WireRequest
from tests.upstream import Upstream, playing

Build = Callable[..., RemoteEngine]
Open = Callable[..., Awaitable[Client]]
GET = Question(method="GET", path="models")


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


@pytest.fixture
async def opened(upstream: Upstream) -> AsyncIterator[Open]:
    """Opens clients of the upstream; closes them."""
    made: list[Client] = []

    async def open_one(**config: object) -> Client:
        client = Client("up", RemoteConfig(**{"base_url": upstream.base_url} | config))  # type: ignore[arg-type]
        made.append(client)
        await client.open()
        return client

    yield open_one
    for client in made:
        await client.close()


@pytest.fixture
async def client(opened: Open) -> Client:
    """A client that waits long enough for everything."""
    return await opened()


async def answer_of(client: Client, question: Question = GET) -> tuple[int, bytes]:
    """The status and the body of a whole answer, whose connection is then given back."""
    reply = await client.ask(question)
    try:
        return reply.status, await reply.whole(100_000_000)
    finally:
        reply.close()


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


async def events_of(engine: RemoteEngine, request: GenerateRequest) -> list[Event]:
    """Everything that the engine answers."""
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


async def until(upstream: Upstream, holds: Callable[[], bool]) -> None:
    """Wait for the upstream's numbers without stopping the test's own loop."""
    await asyncio.to_thread(upstream.wait_until, holds)
