"""The kind `paged` as a policy chooses it, in a thread and in a child process."""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path

import httpx
import pytest

from engines.process import ProcessEngine
from gateway.engine_registry import EngineStartFailed
from gateway.gateway import open_gateway
from tests.serving import serving, settings_in

DEV = Path(__file__).parents[2] / "policies" / "dev"
BODY = {
    "model": "starter",
    "messages": [{"role": "user", "content": "Tell me a story about a cat."}],
    "temperature": 0,
    "max_tokens": 200,
    "ignore_eos": True,
}


def policy_with(directory: Path, engine: str) -> Path:
    policy = directory / "policy"
    shutil.copytree(DEV, policy)
    (policy / "engines.toml").write_text(f"[laptop]\n{engine}\n")
    return policy


@pytest.mark.slow
def test_a_killed_child_ends_its_stream_with_an_error_and_the_next_call_is_answered(
    tmp_path: Path,
) -> None:
    policy = policy_with(tmp_path, 'kind = "paged"\nisolation = "process"\nnum_threads = 1')
    gateway = open_gateway(settings_in(tmp_path, policy=policy))
    with serving(gateway) as server, httpx.Client(base_url=server.url, timeout=50) as client:
        whole = client.post("/v1/chat/completions", json=BODY | {"max_tokens": 20}).json()
        with client.stream("POST", "/v1/chat/completions", json=BODY | {"stream": True}) as reply:
            lines = (line for line in reply.iter_lines() if line)
            first = next(lines)
            engine = server.run(lambda: gateway.engines["laptop"])
            assert isinstance(engine, ProcessEngine)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            rest = list(lines)
        server.wait_until(lambda: engine.pid is not None)
        again = client.post("/v1/chat/completions", json=BODY | {"max_tokens": 20})

    assert first.startswith("data: {")
    assert '"code":"engine_unavailable"' in rest[-1]
    assert again.json()["choices"] == whole["choices"]


def test_a_key_that_is_not_one_is_named_with_the_nearest_that_is(tmp_path: Path) -> None:
    policy = policy_with(tmp_path, 'kind = "paged"\nmax_sequence = 3')

    with pytest.raises(Exception, match=r'"max_sequence".*"max_sequences"'):
        open_gateway(settings_in(tmp_path, policy=policy))


def test_without_torch_the_start_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = policy_with(tmp_path, 'kind = "paged"')
    for name in [name for name in sys.modules if name.startswith("engines.paged.")]:
        if name != "engines.paged.config":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)

    async def start() -> None:
        async with open_gateway(settings_in(tmp_path, policy=policy)).running():
            pass

    with pytest.raises(EngineStartFailed, match=r"(?s)torch.*penstock\[paged\]"):
        asyncio.run(start())
