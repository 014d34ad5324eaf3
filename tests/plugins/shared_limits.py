"""Two gateways on one Redis, and clients that press on both at once."""

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from engines.protocol import Event, GenerateRequest
from gateway.keys import Keys, open_pepper
from gateway.ledger import open_ledger
from gateway.settings import Settings
from gateway.store import Bucket, Demand, Fill, open_store
from tests.fakes import ScriptedEngine
from tests.serving import Server, scripted_gateway, serving, settings_in, write_policy

GATEWAY = """
    plugins = ["api_keys", "allow_lists", "defaults", "routing", "rate_limits"]
    [rate_limits]
    replicas = 2
"""
MODELS = "".join(
    f'[{name}]\n[[{name}.targets]]\nengine = "scripted"\nmodel = "scripted-model"\n'
    for name in ("chat-small", "chat-big")
)
TEAMS = "".join(
    f'[{name}]\nmodels = ["*"]\nendpoints = ["*"]\nlimits = "standard"\n'
    for name in ("search", "batch")
)
CLIENT_SECONDS = 60.0
ALL = "all teams together"


@dataclass
class Peak:
    """How many run at once, over all engines of this process."""

    running: Counter[str] = field(default_factory=Counter)
    highest: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, change: int) -> None:
        with self.lock:
            for counted in (name, ALL):
                self.running[counted] += change
                self.highest[counted] = max(self.highest[counted], self.running[counted])


class CountedEngine(ScriptedEngine):
    """Counts who runs at the same time; `pause_seconds` is what an answer takes."""

    def __init__(self, peak: Peak, *, pause_seconds: float = 0.0) -> None:
        super().__init__(("one ", "two ", "three "))
        self.peak = peak
        self.pause_seconds = pause_seconds

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        self.peak.add(request.owner, 1)
        try:
            await asyncio.sleep(self.pause_seconds)
            async for event in super().generate(request):
                yield event
        finally:
            self.peak.add(request.owner, -1)


@dataclass
class Answer:
    """What one client got."""

    at: float
    seconds: float
    gateway: int
    team: str
    key: str
    model: str
    status: int
    headers: Mapping[str, str]
    body: str
    usage: int = 0


@dataclass
class Cluster:
    """The gateways, and keys for them: `keys[team]` in the order in which they were made."""

    servers: list[Server]
    engines: list[CountedEngine]
    keys: dict[str, list[str]]
    store_url: str
    peak: Peak

    async def ask(
        self,
        client: httpx.AsyncClient,
        number: int,
        *,
        team: str = "search",
        model: str = "chat-small",
        max_tokens: int = 3,
        words: int = 2,
    ) -> Answer:
        """One call by one of the team's keys, to one of the gateways, by turns."""
        key = self.keys[team][number % len(self.keys[team])]
        gateway = number % len(self.servers)
        body = {
            "model": model,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": "word " * words}],
        }
        began = time.monotonic()
        answer = await client.post(
            f"{self.servers[gateway].url}/v1/chat/completions",
            json=body,
            headers={"authorization": f"Bearer {key}"},
        )
        usage = answer.json()["usage"]["total_tokens"] if answer.status_code == 200 else 0
        return Answer(
            at=began,
            seconds=time.monotonic() - began,
            gateway=gateway,
            team=team,
            key=key,
            model=model,
            status=answer.status_code,
            headers=answer.headers,
            body=answer.text,
            usage=usage,
        )

    async def fills(self, *buckets: Bucket) -> list[Fill]:
        """How full some buckets are, by a look from outside; at a memory store, from inside."""
        if self.store_url == "memory:":
            return await asyncio.to_thread(self._own_fills, buckets)
        store = open_store(self.store_url)
        async with store.running():
            return list(await store.peek([Demand(bucket=each, fixed=0) for each in buckets]))

    def _own_fills(self, buckets: Sequence[Bucket]) -> list[Fill]:
        (server,) = self.servers
        demands = [Demand(bucket=each, fixed=0) for each in buckets]
        return list(server.wait_for(lambda: server.gateway.store.peek(demands)))

    def open_stream(self, number: int, team: str = "search") -> socket.socket:
        """A client that has asked for a stream and read nothing yet."""
        server = self.servers[number % len(self.servers)]
        host, _, port = server.url.removeprefix("http://").partition(":")
        body = (
            '{"model": "chat-small", "stream": true, "max_tokens": 3, '
            '"messages": [{"role": "user", "content": "two words"}]}'
        )
        client = socket.create_connection((host, int(port)), timeout=CLIENT_SECONDS)
        client.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n"
            f"authorization: Bearer {self.keys[team][number % len(self.keys[team])]}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )
        return client


def kill(client: socket.socket) -> None:
    """End a connection as the kernel does for a process that was killed with data unread."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def new_client(connections: int = 200) -> httpx.AsyncClient:
    """A connection for each call: a kept one may be closed by the server as it is used again."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
    return httpx.AsyncClient(timeout=CLIENT_SECONDS, limits=limits)


@contextmanager
def cluster(
    folder: Path,
    *,
    limits: str,
    store_url: str,
    gateway: str = GATEWAY,
    pause_seconds: float = 0.0,
    num_gateways: int = 2,
    num_keys: int = 4,
) -> Iterator[Cluster]:
    """Gateways of one policy, one ledger and one store, each on its own thread."""
    directory = write_policy(
        folder / "policy",
        {
            "gateway.toml": gateway,
            "models.toml": MODELS,
            "teams.toml": TEAMS,
            "limits.toml": limits,
        },
    )
    settings = settings_in(folder, store=store_url)
    keys = asyncio.run(_keys(settings, num_keys))
    peak = Peak()
    engines = [CountedEngine(peak, pause_seconds=pause_seconds) for _ in range(num_gateways)]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                serving(scripted_gateway(directory, {"scripted": engine}, settings=settings))
            )
            for engine in engines
        ]
        for server in servers:
            know_keys(server, [key for of_team in keys.values() for key in of_team])
        yield Cluster(servers, engines, keys, store_url, peak)


def know_keys(server: Server, keys: Sequence[str]) -> None:
    """Have a gateway know these keys, so that no call has to wait for the ledger.

    Two hundred calls with new keys on a machine that has better to do are a 503 for some:
    a look-up has a second. That is no matter of limits.
    """
    with httpx.Client(timeout=CLIENT_SECONDS) as client:
        for key in keys:
            headers = {"authorization": f"Bearer {key}"}
            for _ in range(100):
                if client.get(f"{server.url}/v1/models", headers=headers).status_code == 200:
                    break
            else:
                raise AssertionError("a key that was made is not known")


async def _keys(settings: Settings, count: int) -> dict[str, list[str]]:
    async with (
        open_ledger(settings.ledger_url) as ledger,
        Keys(ledger, pepper=open_pepper(settings)) as keys,
    ):
        return {
            team: [(await keys.create(team, f"{team}-{i}")).secret for i in range(count)]
            for team in ("search", "batch")
        }
