import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from engines.protocol import Started
from tests.engines.process.children import Script
from tests.engines.process.hosted import asking, hosted, is_gone, pid_of, until, until_idle

ROOT = Path(__file__).parents[3]
PARENT = """
import asyncio
from tests.engines.process.hosted import engine_of, pid_of

async def main():
    engine = engine_of()
    await engine.start()
    print(pid_of(engine), flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_a_terminals_ctrl_c_and_a_service_managers_stop_do_not_end_it() -> None:
    async with hosted(config=Script(is_endless=True)) as engine:
        child = pid_of(engine)
        async with aclosing(engine.generate(asking())) as events:
            assert isinstance(await anext(events), Started)
            os.kill(child, signal.SIGINT)
            os.kill(child, signal.SIGTERM)

            health = [await engine.health() for _ in range(5)]

        assert [seen.running for seen in health] == [1] * 5
        assert engine.pid == child
        assert os.getpgid(child) == child != os.getpgid(0)  # what Ctrl-C is sent to


@pytest.mark.parametrize(
    "child_is_stopped",
    [
        False,
        pytest.param(
            True,
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills it then"),
        ),
    ],
)
async def test_a_child_is_gone_when_its_parent_was_killed(child_is_stopped: bool) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, cwd=ROOT, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    assert not is_gone(child)
    if child_is_stopped:
        os.kill(child, signal.SIGSTOP)

    parent.kill()
    await parent.wait()

    async def has_gone() -> bool:
        return is_gone(child)

    await until(has_gone)


async def test_a_child_whose_socket_ends_ends_itself() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engines.process", str(theirs.fileno()), str(os.getpid()),
            cwd=ROOT, pass_fds=(theirs.fileno(),), start_new_session=True,
        )  # fmt: skip
    assert child.returncode is None

    ours.close()

    async with asyncio.timeout(40):
        assert await child.wait() == 0


async def test_a_child_that_finds_another_parent_does_not_begin() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engines.process", str(theirs.fileno()), "1",
            cwd=ROOT, pass_fds=(theirs.fileno(),), start_new_session=True,
        )  # fmt: skip
        async with asyncio.timeout(40):
            assert await child.wait() == 1


async def test_what_a_child_started_ends_with_it() -> None:
    async with hosted("with_child_of_its_own") as engine:
        (grandchild,) = psutil.Process(pid_of(engine)).children()
        os.kill(pid_of(engine), signal.SIGKILL)

        async def has_gone() -> bool:
            return is_gone(grandchild.pid)

        await until(has_gone)


async def test_closing_a_stream_cancels_it_in_the_child() -> None:
    async with hosted(config=Script(is_endless=True)) as engine:
        streams = [engine.generate(asking()) for _ in range(3)]
        for stream in streams:
            assert isinstance(await anext(stream), Started)
        assert (await engine.health()).running == 3

        for stream in streams:
            await stream.aclose()

        await until_idle(engine)
        assert psutil.Process(pid_of(engine)).is_running()
