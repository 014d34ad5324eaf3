"""Ten thousand calls over sockets through a gateway whose upstreams fail one after another.

Gateway and upstreams are processes; one upstream is killed, one made slow, one answers
500, each for a while, and then one 429. test_faults.py does the same to engines in virtual
time, in more ways.
"""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.targets.retry_budget import RESERVE
from tests.fallible_upstream import FallibleUpstream
from tests.serving import write_policy
from tests.traffic import Broke, Traffic, send

NUM_CALLS = 10_000
CALLS_PER_SECOND = 500.0  # or as fast as this machine is
MOST_AT_ONCE = 48
ENGINES = ("up0", "up1", "up2")
PATIENCE_SECONDS = 60.0

POLICY = {
    "gateway.toml": """
        plugins = ["anonymous", "allow_lists", "defaults", "routing", "remote_engine"]
        [anonymous]
        team = "me"
        role = "admin"
    """,
    "models.toml": """
        [chat-small]
        first_output_timeout_seconds = 2
        breaker = { failures = 5, open_seconds = 0.5, max_open_seconds = 1 }
        targets = [{ engine = "up0" }, { engine = "up1" }, { engine = "up2" }]
    """,
}


class Stage:
    """The processes, and a client of the gateway."""

    def __init__(
        self, directory: Path, url: str, upstreams: Sequence[FallibleUpstream],
        client: aiohttp.ClientSession,
    ) -> None:  # fmt: skip
        self.url = url
        self.upstreams = upstreams
        self._directory = directory
        self._client = client
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    async def ask(self, number: int) -> None:
        """One call, every other one a stream; returns when its answer is whole."""
        body = {
            "model": "chat-small",
            "messages": [{"role": "user", "content": f"call {number}"}],
            "stream": number % 2 == 0,
        }
        url = f"{self.url}/v1/chat/completions"
        async with self._places, self._client.post(url, json=body) as response:
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {await response.text()}")
            if number % 2:
                answer = await response.json()
                assert answer["choices"][0]["message"]["content"] == "hello there"
                return
            text, has_ended = await self._heard(response)
            if not has_ended:
                assert text, "an error where a status could have been"
                raise Broke
            assert text == "hello there"

    async def _heard(self, response: aiohttp.ClientResponse) -> tuple[str, bool]:
        text = ""
        async for line in response.content:
            data = line.removeprefix(b"data: ").strip()
            if data == b"[DONE]":
                return text, True
            if data:
                for choice in json.loads(data).get("choices", ()):
                    text += choice["delta"].get("content") or ""
        return text, False

    async def report(self) -> Any:
        """What the gateway knows of its targets."""
        async with self._client.get(f"{self.url}/admin/targets") as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def settled(self) -> Any:
        """The report, once every breaker is closed: a call now and then is the probe."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                report = await self.report()
                if all(target["breaker"] == "closed" for target in report["targets"]):
                    return report
                with contextlib.suppress(RuntimeError, Broke):
                    await self.ask(1)

    def breaker_events(self) -> Sequence[tuple[str, str]]:
        """What the gateway's log says of breakers, in order."""
        return [(one["event"], one["engine"]) for one in self.told() if "breaker" in one["event"]]

    def told(self) -> Sequence[Mapping[str, Any]]:
        """The lines of the gateway's log."""
        lines = (self._directory / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    @property
    def num_received(self) -> int:
        """Requests that reached an upstream."""
        return sum(upstream.num_requests for upstream in self.upstreams)


@contextlib.asynccontextmanager
async def stage_in(directory: Path) -> AsyncIterator[Stage]:
    *ports, port = free_ports(len(ENGINES) + 1)
    upstreams = [
        FallibleUpstream(each, directory / name) for each, name in zip(ports, ENGINES, strict=True)
    ]
    engines = "".join(
        f'[{name}]\nkind = "remote"\nbase_url = "{upstream.base_url}"\nrefresh_seconds = 0\n'
        for name, upstream in zip(ENGINES, upstreams, strict=True)
    )
    write_policy(directory / "policy", {**POLICY, "engines.toml": engines})
    url = f"http://127.0.0.1:{port}"
    async with contextlib.AsyncExitStack() as stack:
        for upstream in upstreams:
            await stack.enter_async_context(upstream.started())
        stack.enter_context(gateway_in(directory, port))
        timeout = aiohttp.ClientTimeout(total=None)
        client = aiohttp.ClientSession(timeout=timeout)
        await stack.enter_async_context(client)
        await ready(client, url)
        yield Stage(directory, url, upstreams, client)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on; all held until all are known."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in held]


@contextlib.contextmanager
def gateway_in(directory: Path, port: int) -> Iterator[None]:
    variables = {
        "PENSTOCK_POLICY": str(directory / "policy"),
        "PENSTOCK_DATA_DIR": str(directory / "data"),
        "PENSTOCK_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port)]
    with (directory / "log").open("wb") as output:
        process = subprocess.Popen(command, stderr=output, env={**os.environ, **variables})
    try:
        yield
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)


async def ready(client: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get(f"{url}/readyz") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)


async def run(directory: Path) -> tuple[Traffic, Mapping[str, Any], Stage, int]:
    async with stage_in(directory) as stage:
        killed, slow, failing = stage.upstreams
        traffic = await send(
            stage.ask,
            num_calls=NUM_CALLS,
            calls_per_second=CALLS_PER_SECOND,
            events={
                1500: killed.kill,
                3500: killed.start,
                4000: lambda: slow.become("slow"),
                6000: lambda: slow.become("fine"),
                7000: lambda: failing.become("failing"),
                8500: lambda: failing.become("fine"),
                9000: lambda: killed.become("busy"),
                9500: lambda: killed.become("fine"),
            },
        )
        num_received, report = stage.num_received, await stage.report()
        settled = await stage.settled()
        assert all(target["in_flight"] == 0 for target in settled["targets"])
        return traffic, report, stage, num_received


@pytest.mark.slow
def test_no_call_over_sockets_is_lost_while_upstreams_die_hang_and_fail(tmp_path: Path) -> None:
    traffic, report, stage, num_received = asyncio.run(run(tmp_path))

    assert traffic.lost == []
    assert traffic.num_answered + traffic.num_broken == NUM_CALLS
    # Only a stream that had begun at the upstream when it was killed may break.
    assert traffic.num_broken <= MOST_AT_ONCE
    # Extra load, as the upstreams see it and as the gateway counts it, is in the budget.
    (model,) = report["models"]
    budget = 0.2 * NUM_CALLS + RESERVE
    refused = sum(target["refused"] for target in report["targets"])
    assert num_received <= NUM_CALLS + budget + refused
    assert model["requests"] == NUM_CALLS
    assert 0 < model["extra_attempts"] <= budget
    assert sum(target["asked"] for target in report["targets"]) == (
        NUM_CALLS + model["extra_attempts"] + refused
    )
    # The one that was overloaded was left alone for as long as it asked for, time and again.
    assert report["targets"][0]["refused"] == refused > 0
    rests = sum(1 for one in stage.told() if one["event"] == "target_rests")
    assert 0 < rests <= refused <= rests * MOST_AT_ONCE
    # Each breaker opened while its upstream was ill, and closed when that was well again.
    events = stage.breaker_events()
    for name in ENGINES:
        mine = [event for event, engine in events if engine == name]
        assert mine[0] == "breaker_opened"
        assert mine[-1] == "breaker_closed"
