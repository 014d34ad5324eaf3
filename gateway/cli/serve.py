"""`penstock serve`: serves the models of a policy until it is told to stop."""

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import uvicorn

    from gateway.gateway import Gateway
    from gateway.policy import Policy
    from gateway.settings import Settings

# Taking the GIL back from an engine's thread costs up to one switch interval;
# Python's 5 ms would be a whole decode step (docs/experiments.md).
SWITCH_INTERVAL_SECONDS = 0.0005
NUM_PORTS_TRIED = 20
NUM_YOUNG_OBJECTS = 10_000  # between two collections; Python says 700


@click.command("serve")
@click.option("--policy", type=click.Path(path_type=Path), help="Policy directory.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: 8080]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["auto", "json", "console"]))
def command(
    policy: Path | None,
    host: str | None,
    port: int | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Serve the models of a policy.

    Every option has an environment variable (PENSTOCK_POLICY, PENSTOCK_PORT, …);
    docs/operations.md lists them.
    """
    settings = settings_of(
        policy=policy, host=host, port=port, log_level=log_level, log_format=log_format
    )
    chosen_by = ("PENSTOCK_PORT", "OLLAMA_HOST")
    port_was_chosen = port is not None or any(os.environ.get(name) for name in chosen_by)
    with bound_socket(settings.host, settings.port, only_this_port=port_was_chosen) as listener:
        if settings.admin_port is None:
            serve(settings, [listener])
            return
        with bound_socket(
            settings.admin_host, settings.admin_port, only_this_port=True
        ) as admin_listener:
            serve(with_admin_port(settings, listener, admin_listener), [listener, admin_listener])


def with_admin_port(
    settings: "Settings", listener: socket.socket, admin_listener: socket.socket
) -> "Settings":
    """The settings with the port that was really bound: by it the two are told apart."""
    import msgspec

    port = admin_listener.getsockname()[1]
    if port == listener.getsockname()[1]:
        raise click.ClickException(
            f"PENSTOCK_ADMIN_PORT is {port}, which is the public port too; choose another"
        )
    return msgspec.structs.replace(settings, admin_port=port)


def settings_of(**options: object) -> "Settings":
    """The environment's settings with the command line's on top."""
    import msgspec

    from gateway.settings import SettingsInvalid, read_settings

    try:
        settings = read_settings()
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from None
    given = {name: value for name, value in options.items() if value is not None}
    return msgspec.structs.replace(settings, **given)


def bound_socket(host: str, port: int, *, only_this_port: bool) -> socket.socket:
    """A listening socket; without `only_this_port`, on the first free port from `port` on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = port if only_this_port or port == 0 else port + NUM_PORTS_TRIED - 1
    for candidate in range(port, min(last, 65535) + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(1024)
        except OSError as error:
            listener.close()
            if candidate == last:
                raise click.ClickException(_why_not_bound(host, port, last, error)) from None
            continue
        listener.settimeout(0)
        return listener
    raise click.ClickException(f"no free port from {port} on; choose one with --port")


def _why_not_bound(host: str, port: int, last: int, error: OSError) -> str:
    import errno

    if error.errno == errno.EADDRINUSE:
        ports = f"port {port} is" if port == last else f"ports {port} to {last} are"
        return (
            f"{ports} in use on {host}; stop what listens there or choose another "
            "with --port (0: any free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be opened by this user; choose one above 1023 with --port"
    return f"cannot listen on {host}:{port}: {error.strerror or error}"


def serve(settings: "Settings", listeners: Sequence[socket.socket]) -> None:
    """Serve until SIGINT or SIGTERM; running calls get `drain_seconds` to finish.

    A second listener is for admin endpoints.

    A second signal ends them at once, a third one the process. SIGHUP reloads the policy.
    """
    from gateway.app import create_app
    from gateway.cli.ollama_log import log_ollama_variables
    from gateway.listener import allow_open_files, server_of
    from gateway.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    allow_open_files()
    try:
        app = create_app(settings)
    except Exception as error:
        raise explained(error) from error
    gateway = app.state.gateway
    server = server_of(app)
    signal.signal(signal.SIGHUP, _on_hang_up(server, gateway))
    urls = [_url_of(listener) for listener in listeners]
    gateway.on_ready.append(settle_memory)
    gateway.on_ready.append(lambda: log_ollama_variables(settings, gateway))
    gateway.on_ready.append(lambda: _say_where(urls, gateway.policy))
    # uvicorn answers a failed start with a traceback; what failed is told below.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    gateway.on_ready.append(lambda: logging.getLogger("uvicorn.error").setLevel(logging.WARNING))
    with contextlib.suppress(SystemExit):
        server.run(sockets=list(listeners))
    if gateway.failure is not None:
        raise start_failure(gateway.failure)


def settle_memory() -> None:
    """Let the garbage collector look at what calls make, and no more at what is there by now.

    A hundred thousand objects of modules and policy live as long as the process; going
    through them again and again took an eighth of the time of a small call
    (docs/experiments.md).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(NUM_YOUNG_OBJECTS, 10, 10)


def _on_hang_up(server: "uvicorn.Server", gateway: "Gateway") -> Callable[..., None]:
    """What SIGHUP means: take the policy anew, unless the terminal that we ran on was closed."""
    terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]

    def handle(sig: int, frame: FrameType | None) -> None:
        if any(not os.isatty(descriptor) for descriptor in terminals):
            server.handle_exit(signal.SIGTERM, frame)
        else:
            gateway.begin_reload("SIGHUP")

    return handle


def start_failure(failure: Exception) -> Exception:
    """A command-line error for what kept a gateway from starting, where its message is enough."""
    from gateway.engine_registry import EngineStartFailed
    from gateway.keys import PepperInvalid
    from gateway.ledger import LedgerNotOpened
    from gateway.store import StoreNotOpened

    if isinstance(failure, EngineStartFailed | PepperInvalid | LedgerNotOpened | StoreNotOpened):
        return click.ClickException(str(failure))
    return failure


def explained(error: Exception) -> Exception:
    """A command-line error for what a policy or plugin did wrong; else the error itself."""
    from gateway.hooks import PluginInvalid
    from gateway.policy.load import PolicyInvalid

    if isinstance(error, PolicyInvalid):
        problems = "\n  ".join(error.problems)
        return click.ClickException(f"the policy does not hold:\n  {problems}")
    if isinstance(error, PluginInvalid):
        return click.ClickException(str(error))
    return error


def _url_of(listener: socket.socket) -> str:
    address = listener.getsockname()
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


def _say_where(urls: Sequence[str], policy: "Policy") -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"\n[bold]Penstock serves {policy.directory}[/bold]")
    console.print(f"  base URL   [bold green]{urls[0]}/v1[/bold green]")
    for url in urls[1:]:
        console.print(f"  for admins {url}/admin")
    console.print(f"  try it     {curl_line(urls[0], policy)}", markup=False)
    console.print("  stop it    Ctrl-C\n")


def curl_line(url: str, policy: "Policy") -> str:
    """A command that asks this gateway's first model something."""
    model = next((name for name in policy.models if "*" not in name), "starter")
    key = "" if "anonymous" in policy.plugins else '-H "authorization: Bearer $PENSTOCK_API_KEY" '
    body = (
        f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is Penstock?"}}]}}'
    )
    return f"curl {url}/v1/chat/completions {key}-H 'content-type: application/json' -d '{body}'"
