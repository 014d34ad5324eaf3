"""Loads and steps a file once in a child process, before the gateway's own process does.

llama.cpp ends its process on some malformed files, and on AMX processors as pip
builds it on the first prompt. A child that dies by a signal is tried again
without repacked weights, which is what AMX needs; if it dies again, the file is
refused and the gateway goes on. What was learned is remembered by file, build
and processor.

`python -m engines.gguf.probe FILE EXTRA_BUFFERS POOLING COMPANIONS` is the child.
"""

import asyncio
import functools
import hashlib
import os
import platform
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct

from engines.errors import Unavailable
from engines.gguf import native
from engines.gguf.remembered import Remembered

if TYPE_CHECKING:
    from engines.gguf.projector import Projector

log = structlog.get_logger()

# A child needs the weights once or twice (repacked), and its libraries.
_MEMORY_FACTOR = 3
_MEMORY_BYTES = 4 * 1024**3
_SECONDS = 60.0
_SECONDS_PER_BYTE = 1 / 50e6  # a slow disk
_KILLED = "a child process that tried was ended by"
_MAX_REASON_BYTES = 2000
# The child is shown nothing of the gateway's environment but where its libraries are.
_ENVIRONMENT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "LLAMA_CPP_LIB_PATH",
    "MTMD_CPP_LIB",
    "SYSTEMROOT",
    "TMPDIR",
)


class Companions(Struct, frozen=True, kw_only=True):
    """Files that are loaded with a model's weights."""

    adapters: tuple[str, ...] = ()
    projector: str | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(map(Path, (*self.adapters, *filter(None, [self.projector]))))


ALONE = Companions()


class Verdict(Struct, frozen=True):
    """What a probe found; `reason` is set when the file must not be loaded."""

    use_extra_buffers: bool
    reason: str | None = None


class Probe:
    """Asks a child process about files, and remembers; lives on the event loop."""

    def __init__(self, memory: Path | None) -> None:
        self._verdicts = Remembered(memory, Verdict, event="probe_not_remembered")

    async def __call__(
        self,
        path: Path,
        *,
        use_extra_buffers: bool | None,
        pooling: str | None = None,
        companions: Companions = ALONE,
    ) -> bool:
        """Say whether to repack the weights. Raises `Unavailable` for a file that kills.

        `pooling` is None for a model that writes text.
        """
        key = identity(path, *companions.paths, use_extra_buffers=use_extra_buffers)
        verdict = self._verdicts.get(key)
        if verdict is None:
            ask = functools.partial(_child, path, pooling=pooling, companions=companions)
            verdict = await self._ask(path, ask, asked=use_extra_buffers)
            self._remember(key, verdict)
        if verdict.reason is not None:
            raise Unavailable(verdict.reason)
        return verdict.use_extra_buffers

    async def _ask(
        self, path: Path, ask: Callable[..., Awaitable[str]], *, asked: bool | None
    ) -> Verdict:
        died = ""
        for choice in (True, False) if asked is None else (asked,):
            died = await ask(use_extra_buffers=choice)
            log.info("model_probed", path=str(path), use_extra_buffers=choice, died=died or None)
            if not died:
                return Verdict(choice)
            if _KILLED not in died:
                break  # it said why; other weights would say the same
        return Verdict(use_extra_buffers=False, reason=f"{path.name} cannot be loaded: {died}")

    def _remember(self, key: str, verdict: Verdict) -> None:
        # Out of time or memory may be another day's luck; only a crash is the file's own.
        if verdict.reason is not None and _KILLED not in verdict.reason:
            return
        self._verdicts.put(key, verdict)


def default_memory(environment: Mapping[str, str]) -> Path:
    """The folder where verdicts are kept when nobody says otherwise."""
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "penstock"


def identity(*paths: Path, use_extra_buffers: bool | None) -> str:
    """The same for the same files, build and processor, and for nothing else."""
    statuses = [(path, path.stat()) for path in paths]
    parts = (
        *((str(path), at.st_size, at.st_mtime_ns, at.st_ino) for path, at in statuses),
        use_extra_buffers,
        native.version(),
        os.environ.get("LLAMA_CPP_LIB_PATH"),
        _build_time(),
        _processor(),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _build_time() -> float | None:
    from importlib.util import find_spec

    found = find_spec("llama_cpp")
    if found is None or found.origin is None:
        return None
    libraries = sorted((Path(found.origin).parent / "lib").glob("libggml-cpu*.so"))
    return libraries[0].stat().st_mtime if libraries else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


async def _child(
    path: Path, *, use_extra_buffers: bool, pooling: str | None, companions: Companions
) -> str:
    """Run the child; returns "" if it lived, and what became of it if not. `path` is absolute."""
    size_bytes = (await asyncio.to_thread(path.stat)).st_size
    seconds = _SECONDS + size_bytes * _SECONDS_PER_BYTE
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "engines.gguf.probe",
        str(path),
        str(int(use_extra_buffers)),
        pooling or "",
        msgspec.json.encode(companions).decode(),
        cwd=root,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            _, said = await process.communicate()
    except TimeoutError:
        return f"it was not ready after {seconds:.0f} seconds in a child process"
    finally:
        if process.returncode is None:
            process.kill()
            # Reaped by the loop's child watcher; waiting here would outlive a cancellation.
    if process.returncode == 0:
        return ""
    if process.returncode is not None and process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"{_KILLED} {name}"
    return said[-_MAX_REASON_BYTES:].decode("utf-8", "replace").strip() or "no reason was given"


def step_once(
    path: Path, *, use_extra_buffers: bool, pooling: str | None, companions: Companions
) -> None:
    """Load a model, compute a prompt and one more token, or one embedding."""
    from engines.gguf.adapter_file import Adapter
    from engines.gguf.runner import Row, Runner, Shape

    adapters = [Adapter(Path(adapter)) for adapter in companions.adapters]
    runner = Runner(
        path,
        use_extra_buffers=use_extra_buffers,
        adapters=adapters,
        projector=Path(companions.projector) if companions.projector else None,
    )
    shape = Shape(
        num_slots=2,
        context_tokens=256,
        pool_tokens=512,
        exact=True,
        max_batch_tokens=64,
    )
    prompt = [min(token, runner.num_tokens - 1) for token in range(1, 33)]
    if pooling is not None:
        runner.embed([prompt], shape, pooling)
    else:
        runner.open_cache(shape)
        last = len(prompt) - 1
        runner.decode([Row(token, at, 0, at == last) for at, token in enumerate(prompt)])
        runner.decode([Row(prompt[0], len(prompt), 0, wants_logits=True)])
        runner.logits(0).max()
        if runner.projector is not None:
            _see_once(runner.projector)
    runner.close()


def _see_once(projector: "Projector") -> None:
    """Encode a picture of nothing."""
    import numpy as np

    from engines.gguf.pictures import Pixels
    from engines.gguf.projector import ImageChunk

    for piece in projector.cut(Pixels(np.zeros((64, 64, 3), np.uint8))).pieces:
        if isinstance(piece, ImageChunk):
            projector.encode(piece)


def main(arguments: list[str]) -> int:
    """The child's whole life."""
    path = Path(arguments[0])
    companions = msgspec.json.decode(arguments[3], type=Companions)
    size_bytes = sum(file.stat().st_size for file in (path, *companions.paths))
    limit = size_bytes * _MEMORY_FACTOR + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    try:
        step_once(
            path,
            use_extra_buffers=arguments[1] == "1",
            pooling=arguments[2] or None,
            companions=companions,
        )
    # The parent reads the reason; a traceback would bury it.
    except Exception as error:  # noqa: BLE001
        sys.stderr.write(str(error) or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
