"""Factories of engines for a child process: functions cannot be sent to one, but named."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from engines.errors import Unavailable
from engines.gguf.config import GgufConfig
from engines.paged.config import PagedConfig
from engines.protocol import Engine, Event, GenerateRequest, Health
from tests.fakes import Hold, ScriptedEngine, Step

HERE = __name__


class Script(Struct, frozen=True, kw_only=True):
    """What a scripted engine in a child says."""

    num_words: int = 20
    is_endless: bool = False  # wait for ever after the last word, or until the engine is closed
    flag: str = ""  # a file that a factory may look at or write


class Plain(Struct, frozen=True):
    """Nothing to configure."""


def scripted(name: str, config: Script) -> ScriptedEngine:
    return ScriptedEngine(lambda request: steps(request, config), name=name)


def steps(request: GenerateRequest, config: Script) -> list[Step]:
    last = request.messages[-1].text if request.messages else str(request.prompt)
    words: list[Step] = [f"{i} {last[:3]} " for i in range(config.num_words)]
    return [*words, Hold()] if config.is_endless or request.sampling.ignore_eos else words


def tallied_scripted(name: str, config: Script) -> Engine:
    return _tallied(scripted(name, config), Path(config.flag))


def tallied_gguf(name: str, config: GgufConfig, *, models_dir: Path, data_dir: Path) -> Engine:
    from engines.gguf.engine import GgufEngine

    engine = GgufEngine(name, config, models_dir=models_dir, data_dir=data_dir)
    return _tallied(engine, data_dir / "num_loads")


def tallied_paged(name: str, config: PagedConfig, *, data_dir: Path) -> Engine:
    from engines.paged.engine import PagedEngine

    return _tallied(PagedEngine(name, config), data_dir / "num_loads")


def failing_paged(name: str, config: PagedConfig, *, data_dir: Path) -> Engine:
    """Its GPU fails once there is a file, which goes with that; then all that it is asked for."""
    from engines.paged import loaded_model
    from engines.paged.engine import PagedEngine
    from engines.paged.runner import TorchRunner

    forward, load_model = TorchRunner.forward, loaded_model.load_model
    has_failed = False

    def compute(function: Callable[..., Any], *given: Any) -> Any:
        nonlocal has_failed
        if has_failed or (data_dir / "fail").exists():
            (data_dir / "fail").unlink(missing_ok=True)
            has_failed = True
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return function(*given)

    TorchRunner.forward = lambda *given: compute(forward, *given)  # type: ignore[assignment, method-assign]
    loaded_model.load_model = partial(compute, load_model)  # type: ignore[assignment]
    return PagedEngine(name, config)


def _tallied(engine: Engine, path: Path) -> Engine:
    """Leave the engine's `num_loads` in a file before a load is answered."""
    load = engine.load

    async def load_and_tell(model: str, *, keep_alive_seconds: float | None = None) -> object:
        info = await load(model, keep_alive_seconds=keep_alive_seconds)
        path.write_text(str(engine.num_loads))  # type: ignore[attr-defined]
        return info

    engine.load = load_and_tell  # type: ignore[method-assign, assignment]
    return engine


class Pouring(ScriptedEngine):
    """Its health's `waiting` says how many events were taken from it."""

    num_poured = 0

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        async for event in super().generate(request):
            self.num_poured += 1
            yield event

    async def health(self) -> Health:
        return Health(ready=True, running=self.running, waiting=self.num_poured)


def pouring(name: str, config: Script) -> Pouring:
    return Pouring(["word "] * config.num_words, name=name)


class Unwell(ScriptedEngine):
    async def health(self) -> Health:
        return Health(ready=not self.running, detail="its GPU fell off", running=self.running)


def unwell(name: str, config: Script) -> Unwell:
    return Unwell(lambda request: steps(request, config), name=name)


def with_child_of_its_own(name: str, config: Script) -> ScriptedEngine:
    subprocess.Popen(["sleep", "1000"])
    return scripted(name, config)


def hanging(name: str, config: Script) -> ScriptedEngine:
    """An engine that blocks its event loop when it is asked to hang."""

    def script(request: GenerateRequest) -> list[Step]:
        if request.messages[-1].text == "hang":
            time.sleep(1000)
        return ["fine"]

    return ScriptedEngine(script, name=name)


def odd(name: str, config: Script) -> ScriptedEngine:
    """An engine with a fault of its own, and with text that no wire can carry."""

    def script(request: GenerateRequest) -> list[Step]:
        if request.messages[-1].text == "fault":
            raise KeyError("a secret of the prompt")
        return ["fine ", "\ud800", " never seen"]

    return ScriptedEngine(script, name=name)


def refusing(name: str, config: Plain) -> Engine:
    raise Unavailable("there is no GPU here", retry_after=7.0)


def faulty(name: str, config: Plain) -> Engine:
    raise KeyError("no_such_key")


def crashing(name: str, config: Plain) -> Engine:
    sys.stderr.write("GGML_ASSERT: the tensor has no name\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("not reached")


def leaving(name: str, config: Plain) -> Engine:
    os._exit(3)


def sleeping(name: str, config: Plain) -> Engine:
    time.sleep(1000)
    raise AssertionError("not reached")


def babbling(name: str, config: Plain) -> Engine:
    """Writes text where frames are expected."""
    os.write(int(sys.argv[1]), b"hello, this is no frame")
    time.sleep(1000)
    raise AssertionError("not reached")


def noisy(name: str, config: Script) -> ScriptedEngine:
    """Prints what is no text, no line and no end of it, and works all the same."""
    print("printed by somebody")  # noqa: T201
    os.write(1, b"\xff\xfe\x00 no text \x1e{no json}\n")
    os.write(2, b'\x1e{"level": 3, "event": ["odd"]}\n')
    os.write(2, b"long" * 20_000)
    os.write(2, b"\n" + b"x\n" * 3000)
    return scripted(name, config)


def good_once(name: str, config: Script) -> ScriptedEngine:
    """Starts while the flag is not there, and leaves it there."""
    flag = Path(config.flag)
    if flag.exists():
        raise Unavailable("the GPU is gone")
    flag.touch()
    return scripted(name, config)
