"""Many clients at once on the starter model, over real sockets."""

import asyncio
import gc
import json
import random
from collections.abc import Iterator

import httpx
import psutil
import pytest

from gateway.gateway import open_gateway
from gateway.settings import shipped_policy
from tests.serving import Server, serving, settings_in

QUESTIONS = [
    "What is Penstock?",
    "Count from 1 to 20.",
    "What is 2 + 3?",
    "Say exactly: one gate, many engines",
    "List the days of the week.",
    "What is the capital of France?",
    "Hello!",
    "Who are you?",
    "Tell me a story.",
    "What colour is the sky?",
    "List the months of the year.",
    "How do I create an API key?",
    "Count from 5 to 30.",
    "What can you do?",
    "Write a poem about water.",
    "Who won the cup final of 1987?",
]
NUM_DROPPED = 500
MAX_GROWTH_BYTES = 24 * 1024 * 1024  # an answer's share of the cache alone is half a megabyte


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("many")
    settings = settings_in(directory, policy=shipped_policy("dev"))
    with serving(open_gateway(settings)) as running:
        yield running


def body(question: str, **fields: object) -> dict[str, object]:
    return {
        "model": "starter",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 96,
        "stream": True,
        **fields,
    }


async def streamed(
    client: httpx.AsyncClient, question: str, *, most_chunks: int | None = None
) -> str:
    """The answer's text, or what came of it before the client left after so many chunks."""
    pieces: list[str] = []
    async with client.stream("POST", "/v1/chat/completions", json=body(question)) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                pieces.append(choice["delta"].get("content") or "")
                if len(pieces) == most_chunks:
                    break
    return "".join(pieces)


def client_of(server: Server) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=64)
    return httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits)


async def test_sixteen_streams_at_once_each_say_what_they_say_alone(server: Server) -> None:
    async with client_of(server) as client:
        alone = [await streamed(client, question) for question in QUESTIONS]

        together = await asyncio.gather(*(streamed(client, question) for question in QUESTIONS))

    assert all(alone)
    assert together == alone


async def test_streams_dropped_at_any_moment_leave_nothing_running(server: Server) -> None:
    draw = random.Random(7)
    engine = server.gateway.engines["laptop"]
    process = psutil.Process()

    async def drop_one(client: httpx.AsyncClient) -> None:
        question = draw.choice(QUESTIONS)
        if draw.random() < 0.5:
            await streamed(client, question, most_chunks=draw.randrange(1, 40))
            return
        try:  # while it connects, waits, is computed or streams
            async with asyncio.timeout(draw.choice([0.002, 0.01, 0.05, 0.25]) * draw.random()):
                await streamed(client, question)
        except TimeoutError:
            pass

    async def drop(number: int) -> None:
        async with client_of(server) as client:
            crowd = asyncio.Semaphore(24)

            async def in_turn() -> None:
                async with crowd:
                    await drop_one(client)

            await asyncio.gather(*(in_turn() for _ in range(number)))

    def is_idle() -> bool:
        gateway = server.gateway
        loaded = engine._pool.loaded()  # type: ignore[attr-defined]
        return not gateway.calls and not any(
            model.num_running or model.line.num_waiting for model in loaded
        )

    await drop(100)  # every path has run, every buffer has its size
    await asyncio.to_thread(server.wait_until, is_idle)
    gc.collect()
    before = process.memory_info().rss

    await drop(NUM_DROPPED)
    await asyncio.to_thread(server.wait_until, is_idle)
    gc.collect()

    assert process.memory_info().rss - before < MAX_GROWTH_BYTES
    async with client_of(server) as client:
        health = (await client.get("/admin/models")).json()["engines"][0]
        assert (health["running"], health["waiting"]) == (0, 0)
        assert await streamed(client, QUESTIONS[0])
