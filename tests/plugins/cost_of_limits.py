"""What admission costs a call, in microseconds: `python -m tests.plugins.cost_of_limits`.

Everything between the headers and the engine, without HTTP: authentication, allow-lists,
defaults, routing, and six limits of three kinds in two scopes, reserved and settled.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from engines.protocol import GenerateRequest, Message, Text, Usage
from gateway.call import Call, new_call_id
from gateway.gateway import Gateway
from tests.fakes import ScriptedEngine
from tests.redis_server import redis_server
from tests.serving import scripted_gateway, settings_in, write_policy

PLUGINS = 'plugins = ["api_keys", "allow_lists", "defaults", "routing"{}]\n'
LIMITS = """
[none]
requests_per_minute = 1_000_000_000
tokens_per_minute   = 2_000_000_000
concurrent_calls    = 1000
tokens_per_month    = 1_000_000_000_000

[each-key]
per                 = ["key"]
requests_per_minute = 1_000_000_000
tokens_per_minute   = 2_000_000_000
"""
REQUEST = GenerateRequest(
    id="r", model="gpt-4o-mini", messages=[Message(role="user", parts=[Text("two words")])],
    max_tokens=64,
)  # fmt: skip
CALLS = 3000
ROUNDS = 7


async def admit(gateway: Gateway, headers: dict[str, str]) -> None:
    """One call's way to its engine and out again; the engine itself takes no time."""
    hooks = gateway.hooks
    call = Call(id=new_call_id(), endpoint="openai.chat", policy=gateway.policy, headers=headers)
    principal = await hooks.identify(call, headers)
    assert principal is not None
    call.principal = principal
    call.requests = [REQUEST]
    call.asked_max_tokens = REQUEST.max_tokens
    call.model = gateway.policy.resolve(REQUEST.model)
    await hooks.authorize(call)
    await hooks.prepare(call)
    call.route = await hooks.route(call)
    async with hooks.admit(call):
        call.tally(0).set(Usage(prompt_tokens=2, completion_tokens=20))
        call.first_output_at = call.started_at


@asynccontextmanager
async def running(store: str, *, limited: bool) -> AsyncGenerator[Gateway, None]:
    with TemporaryDirectory() as folder:
        files = {
            "gateway.toml": PLUGINS.format(', "rate_limits"' if limited else ""),
            "limits.toml": LIMITS,
        }
        directory = write_policy(Path(folder) / "policy", files)
        settings = settings_in(Path(folder), store=store)
        gateway = scripted_gateway(directory, {"scripted": ScriptedEngine()}, settings=settings)
        async with gateway.running():
            yield gateway


async def measure(name: str, store: str, *, limited: bool = True, at_once: int = 1) -> None:
    async with running(store, limited=limited) as gateway:
        key = await gateway.keys.create("me", "cost")
        headers = {"authorization": f"Bearer {key.secret}"}

        async def calls(count: int) -> None:
            for _ in range(count):
                await admit(gateway, headers)

        await calls(300)
        best = float("inf")
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await asyncio.gather(*(calls(CALLS // at_once) for _ in range(at_once)))
            best = min(best, (time.perf_counter() - began) / CALLS * 1e6)
    sys.stdout.write(f"{name:36} {best:7.0f}\n")


async def main() -> None:
    await measure("without rate_limits", "memory:", limited=False)
    await measure("memory", "memory:")
    with redis_server() as server:
        await measure("Redis, one call at a time", server.url)
        await measure("Redis, 16 calls at once", server.url, at_once=16)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    import uvloop

    uvloop.run(main())
