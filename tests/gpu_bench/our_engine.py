"""The paged engine as a subject, in this process or behind `penstock serve`.

In-process it is built through the same registry as in a gateway, from the table
that an engines.toml would have; no plugin needs to be installed for that.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec

from engines.protocol import Engine
from gateway.bench import question as asking
from gateway.bench.drive import Run, drive
from gateway.bench.engine_subject import started
from gateway.bench.http_subject import Server, connected
from gateway.bench.load import AtOnce
from gateway.engine_registry import EngineRegistry, EngineSite
from gateway.policy import EnginePolicy

SERVE_SECONDS = 300.0
CONTEXT_TOKENS = 4096  # every engine's longest sequence


class NotMeasured(Exception):
    """This cannot be measured here; says why."""


class DrivenSubject:
    """Asks all prompts at once through `gateway.bench`, and checks that each was answered whole."""

    def __init__(self, runner: asyncio.Runner, subject: asking.Subject) -> None:
        self._runner = runner
        self._subject = subject

    def seconds_for(
        self, prompts: Sequence[Sequence[int]], lengths: Sequence[int], *, temperature: float
    ) -> float:
        conversations = [
            asking.Conversation(
                questions=[
                    asking.Question(
                        token_ids=prompt,
                        max_tokens=length,
                        temperature=temperature,
                        ignore_eos=True,
                    )
                ]
            )
            for prompt, length in zip(prompts, lengths, strict=True)
        ]
        run = self._runner.run(drive(self._subject, conversations, AtOnce(len(conversations))))
        check_whole(run, sum(lengths))
        return run.seconds


def check_whole(run: Run, num_tokens: int) -> None:
    """A figure of answers that failed or fell short would be none."""
    failures = [sample.failure for sample in run.samples if sample.failure is not None]
    if failures:
        raise NotMeasured(f"{len(failures)} prompts failed: {failures[0].message}")
    if run.output_tokens != num_tokens:
        raise NotMeasured(f"{run.output_tokens} tokens came where {num_tokens} were asked for")


def paged_engine(folder: Path, options: Mapping[str, Any]) -> Engine:
    """The engine of `kind = "paged"` with random weights at the shapes of `folder`."""
    from plugins.paged_engine import PagedEnginePlugin

    registry = EngineRegistry()
    PagedEnginePlugin().register_engines(registry)
    table = engine_table(folder, options)
    config = msgspec.convert(table, registry.configs["paged"])
    here = EngineSite(models_dir=folder.parent, data_dir=folder.parent)
    return registry.build(EnginePolicy(name="bench", kind="paged", config=config), here)


def engine_table(folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's keys; `options` wins."""
    return {
        "model": str(folder.absolute()),
        "load_format": "dummy",
        "context_tokens": CONTEXT_TOKENS,
        **options,
    }


@contextmanager
def in_process(build: Callable[[], Engine]) -> Iterator[DrivenSubject]:
    """An engine on an event loop of this process, as a gateway would have it."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        engine = build()
        stack = AsyncExitStack()
        try:
            [model, *_] = runner.run(engine.models())
            subject = runner.run(stack.enter_async_context(started(engine, model.name)))
            yield DrivenSubject(runner, subject)
        finally:
            runner.run(stack.aclose())


@contextmanager
def over_http(folder: Path, options: Mapping[str, Any]) -> Iterator[DrivenSubject]:
    """The same engine behind `penstock serve` in a process of its own."""
    with TemporaryDirectory() as directory, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        policy = write_policy(Path(directory) / "policy", folder, options)
        with _served(policy) as url:
            stack = AsyncExitStack()
            server = Server(url=url, model="bench", endpoint="completions")
            subject = runner.run(stack.enter_async_context(connected(server)))
            try:
                yield DrivenSubject(runner, subject)
            finally:
                runner.run(stack.aclose())


def write_policy(directory: Path, folder: Path, options: Mapping[str, Any]) -> Path:
    """A policy of this one engine and model, which anyone on this machine may ask."""
    table = {"kind": "paged", **engine_table(folder, options)}
    engine = "\n".join(
        f"{key} = {msgspec.json.encode(value).decode()}" for key, value in table.items()
    )
    files = {
        "gateway.toml": 'plugins = ["anonymous", "allow_lists", "defaults", "routing", '
        '"paged_engine"]\n[anonymous]\nteam = "me"\n',
        "engines.toml": f"[bench]\n{engine}\n",
        "models.toml": f'[bench]\n[[bench.targets]]\nengine = "bench"\nmodel = "{folder.name}"\n',
        "teams.toml": '[me]\nmodels = ["*"]\nendpoints = ["*"]\nlimits = "none"\n',
        "limits.toml": "[none]\n",
        "prices.toml": "",
    }
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


@contextmanager
def _served(policy: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gateway", "serve", "--policy", str(policy)]
    process = subprocess.Popen([*command, "--port", str(port), "--log-level", "warning"])
    try:
        _wait_until_ready(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + SERVE_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotMeasured(f"penstock serve ended with {process.returncode}")
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=1).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise NotMeasured(f"penstock serve was not ready after {SERVE_SECONDS:.0f} s")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
