"""What is left of a call when it is over."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway import Call
from tests.fakes import ScriptedEngine
from tests.serving import scripted_gateway, serving, write_policy

NUM_CALLS = 20
BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hello"}]}


@contextmanager
def no_collector() -> Iterator[None]:
    """For as long, only what nobody refers to is freed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def records() -> list[object]:
    """What there is of calls in this process, other tests' too.

    Asked of the type: `isinstance` would read `__class__` of every object there is, and some
    libraries' objects warn when they are read.
    """
    return [one for one in gc.get_objects() if issubclass(type(one), Call | RequestResponseCycle)]


def test_calls_are_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    engine = ScriptedEngine(lambda _: ["hello", " there"])
    gateway = scripted_gateway(write_policy(tmp_path / "policy"), {"scripted": engine})
    with serving(gateway) as server, httpx.Client(base_url=server.url) as client, no_collector():
        before = records()
        for stream in (False, True):
            for _ in range(NUM_CALLS):
                client.post("/v1/chat/completions", json={**BODY, "stream": stream})
        left = [type(one).__name__ for one in records() if not any(one is old for old in before)]

    # A connection keeps its last request until the next one comes.
    assert len(left) <= 4, left
