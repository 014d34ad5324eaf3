"""A client of a gateway: of the one that was named, of one that runs, or of our own.

Where no gateway runs, one is started on a free port of loopback, in a thread of
this process, for as long as the command lasts. So a command travels the same road
as every client's words, and a fresh machine needs no server to begin with.
"""

import contextlib
import logging
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from gateway.cli.address import default_url, is_elsewhere
from gateway.cli.client import GatewayClient, client_options

LOG_NAME = "command.log"  # in the data directory


def library_options(command: Any) -> Any:
    """The options of every command that needs no gateway to run."""
    command = click.option(
        "--policy",
        type=click.Path(path_type=Path),
        help="Policy of the gateway that this command starts for itself.",
    )(command)
    return client_options(command)


@contextmanager
def opened_client(
    url: str | None, key: str | None, policy: Path | None
) -> Generator[GatewayClient, None, None]:
    """A client of the named or running gateway, or of one started for this command."""
    with GatewayClient(url or default_url(), key) as client:
        is_named = url is not None or is_elsewhere()
        if policy is None and (is_named or client.is_up()):
            yield client
            return
        if url is not None:
            raise click.UsageError("--url names a gateway, --policy starts one: give one of them")
    with _embedded_gateway(policy) as own_url, GatewayClient(own_url, key) as client:
        yield client


def _log_file(data_dir: Path) -> TextIO:
    """The log of this command's gateway; the next command begins it anew."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        return (data_dir / LOG_NAME).open("w", encoding="utf-8")
    except OSError:
        return sys.stderr


@contextmanager
def _embedded_gateway(policy: Path | None) -> Generator[str, None, None]:
    """A gateway on a free loopback port, in a thread of this process."""
    import uvicorn

    from gateway.app import create_app
    from gateway.cli.serve import bound_socket, explained, settings_of, start_failure
    from gateway.logs import configure_logs

    settings = settings_of(policy=policy)
    # What is for the user to read is the command's own output; the rest is kept in a file.
    configure_logs(settings.log_level, settings.log_format, _log_file(settings.data_dir))
    try:
        app = create_app(settings)
    except Exception as error:
        raise explained(error) from error
    listener = bound_socket("127.0.0.1", 0, only_this_port=True)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="on"))
    ready = threading.Event()
    gateway = app.state.gateway
    gateway.on_ready.append(ready.set)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    def run() -> None:
        with contextlib.suppress(SystemExit):  # a failed start is told below
            server.run(sockets=[listener])

    thread = threading.Thread(target=run, name="gateway", daemon=True)
    thread.start()
    while not ready.wait(0.05):
        if not thread.is_alive():
            raise start_failure(gateway.failure or RuntimeError("the gateway did not start"))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
