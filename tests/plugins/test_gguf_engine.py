"""One line of policy moves the engine into a process of its own, with the same answers."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx
import psutil
import pytest

from engines.gguf.engine import GgufEngine
from engines.process import ProcessEngine
from gateway.gateway import open_gateway
from tests.serving import Server, serving, settings_in

DEV = Path(__file__).parents[2] / "policies" / "dev"
BODY = {
    "model": "starter",
    "messages": [{"role": "user", "content": "Count from 1 to 20."}],
    "temperature": 0,
    "max_tokens": 40,
}


@contextmanager
def served(directory: Path, isolation: str) -> Iterator[Server]:
    policy = directory / "policy"
    shutil.copytree(DEV, policy)
    with (policy / "engines.toml").open("a") as engines:
        engines.write(f'num_threads = 1\nisolation = "{isolation}"\n')
    with serving(open_gateway(settings_in(directory, policy=policy))) as server:
        yield server


def answer(server: Server) -> str:
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=BODY, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


def test_isolation_is_a_thread_unless_the_policy_says_process(tmp_path: Path) -> None:
    with served(tmp_path / "thread", "thread") as server:
        assert isinstance(server.gateway.engines["laptop"], GgufEngine)
        in_thread = answer(server)

    with served(tmp_path / "process", "process") as server:
        engine = cast(ProcessEngine, server.gateway.engines["laptop"])
        assert isinstance(engine, ProcessEngine)
        assert answer(server) == in_thread
        first = cast(int, server.run(lambda: engine.pid))
        mapped = {Path(library.path).name for library in psutil.Process(first).memory_maps()}
        assert any("llama" in library for library in mapped)

        os.kill(first, signal.SIGKILL)
        server.wait_until(lambda: engine.pid not in (None, first))

        assert answer(server) == in_thread


@pytest.mark.parametrize("isolation", ["container", ""])
def test_another_isolation_is_a_problem_of_the_policy(tmp_path: Path, isolation: str) -> None:
    from gateway.policy.load import PolicyInvalid

    with (
        pytest.raises(PolicyInvalid, match="isolation"),
        served(tmp_path / "odd", isolation),
    ):
        pass
