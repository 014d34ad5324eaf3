"""A gateway with a scripted engine in a process of its own, to be killed and told to stop.

    PENSTOCK_POLICY=… PENSTOCK_DATA_DIR=… python -m tests.scripted_server

It prints its port when it is ready. A message that says `hold` gets one token and
then silence.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.protocol import GenerateRequest
from gateway.app import app_of
from gateway.listener import server_of
from gateway.logs import configure_logs
from gateway.settings import read_settings
from tests.fakes import Hold, ScriptedEngine, Step
from tests.serving import scripted_gateway

END_SECONDS = 40.0


def script(request: GenerateRequest) -> list[Step]:
    """What the engine says to this."""
    if request.messages and request.messages[-1].text == "hold":
        return ["hello", Hold(), "never"]
    return ["hello", " there"]


def main() -> None:
    """Serve until told to stop."""
    settings = read_settings()
    configure_logs("info", "json")
    engine = ScriptedEngine(script)
    gateway = scripted_gateway(settings.policy, {"scripted": engine}, settings=settings)
    listener = socket.create_server(("127.0.0.1", 0))
    gateway.on_ready.append(lambda: print(listener.getsockname()[1], flush=True))  # noqa: T201
    server_of(app_of(gateway)).run(sockets=[listener])


class ScriptedServer:
    """Such a process, seen from a test."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def tell(self, told: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(told)

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        return self.process.wait(END_SECONDS)


@contextmanager
def scripted_server(directory: Path, **settings: object) -> Iterator[ScriptedServer]:
    """Such a process of `directory/policy` and `directory/data`, ready; gone at the end."""
    (directory / "data").mkdir(exist_ok=True)
    settings = {"policy": directory / "policy", "data_dir": directory / "data", **settings}
    variables = {f"PENSTOCK_{name.upper()}": str(value) for name, value in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.scripted_server"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    ) as process:
        try:
            yield ScriptedServer(process)
        finally:
            process.kill()


if __name__ == "__main__":
    main()
