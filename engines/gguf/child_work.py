"""Does heavy work on model files in a child process: nothing here ends the gateway, or slows it.

Converting and quantizing read files that anybody may have made, with native code,
at the full speed of the machine. So a module does it in a process of its own:
`python -m MODULE MEMORY_BYTES` reads an order from its standard input and writes how far
it is, one line of JSON for each step. The child is killed when whoever iterates stops
doing so, and ends itself when its parent is gone (its standard input then ends).
"""

import asyncio
import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from engines.errors import EngineError, RequestRefused, Unavailable

Order = TypeVar("Order", bound=Struct)

_MAX_LINE_BYTES = 1024 * 1024
_MAX_REASON_BYTES = 2000
# As for the probe: nothing of the gateway's environment but where libraries are.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LLAMA_CPP_LIB_PATH", "TMPDIR")
_REFUSED = 2  # the exit status for what is the order's own fault
_NICENESS = 10  # answers that are being written go first


class Far(Struct, frozen=True):
    """How far the work is."""

    done_bytes: int
    total_bytes: int


Tell = Callable[[Far], None]


async def work_in_child(
    module: str, order: Struct, *, memory_bytes: int
) -> AsyncGenerator[Far, None]:
    """Let a module work; the last step has been told when it is done.

    Raises `RequestRefused` for what the module refuses, `Unavailable` for all else."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        str(memory_bytes),
        cwd=str(Path(__file__).parents[2]),
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    said = asyncio.create_task(_last_words(process.stderr))
    try:
        with contextlib.suppress(ConnectionError):  # it died before it read: see its status
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            await process.stdin.drain()
        async for line in process.stdout:
            far = _read(line)
            if far is not None:
                yield far
        status = await process.wait()
        if status:
            raise _failure(status, await said)
    finally:
        if process.returncode is None:
            process.kill()
        # What was killed is gone at once; unread pipes would keep its transport open.
        await process.stdout.read()
        await said
        await process.wait()


def serve_order(
    arguments: list[str], kind: type[Order], work: Callable[[Order, Tell], None]
) -> int:
    """The child's whole life: read the order, do the work, tell how far it is."""
    limit = int(arguments[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    output = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no step
    order = msgspec.json.decode(_first_line(), type=kind)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(order, lambda far: _write(output, far))
    except RequestRefused as error:
        sys.stderr.write(error.message)
        return _REFUSED
    except EngineError as error:
        sys.stderr.write(error.message)
        return 1
    # The parent reads the reason; a traceback would bury it.
    except Exception as error:  # noqa: BLE001
        sys.stderr.write(f"{type(error).__name__}: {error}")
        return 1
    return 0


def _write(output: int, far: Far) -> None:
    os.write(output, msgspec.json.encode(far) + b"\n")


def _first_line() -> bytes:
    # Not from `sys.stdin`, whose lock the thread below would hold when the child ends.
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(0, 65_536)):
        line += piece
    return line


def _end_with_parent() -> None:
    while os.read(0, 65_536):
        pass
    os._exit(1)


def _read(line: bytes) -> Far | None:
    try:
        return msgspec.json.decode(line, type=Far)
    except msgspec.MsgspecError:
        return None


async def _last_words(stream: asyncio.StreamReader) -> str:
    last = b""
    while piece := await stream.read(4096):
        last = (last + piece)[-_MAX_REASON_BYTES:]
    return last.decode("utf-8", "replace").strip()


def _failure(status: int, said: str) -> EngineError:
    if status == _REFUSED:
        return RequestRefused(said, param="modelfile")
    if status < 0:
        name = signal.Signals(-status).name
        return Unavailable(f"the process that worked on the model was ended by {name}")
    return Unavailable(said or "the process that worked on the model ended without a reason")
