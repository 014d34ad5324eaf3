"""Where a gateway is, as far as the environment knows.

`--url` and PENSTOCK_URL say it outright. Without them it is where a gateway with
this environment would listen: PENSTOCK_HOST and PENSTOCK_PORT, else OLLAMA_HOST,
else the default port of this machine.
"""

import os

from gateway.ollama_variables import OllamaHost, ollama_host

DEFAULT_URL = "http://127.0.0.1:8080"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def default_url() -> str:
    """Where a gateway with this environment's settings would listen."""
    host = os.environ.get("PENSTOCK_HOST")
    port = os.environ.get("PENSTOCK_PORT")
    theirs = None if host or port else _ollama_host()
    if theirs is not None:
        return _url(theirs.scheme, theirs.host, theirs.port) + theirs.path
    return _url("http", host or "127.0.0.1", int(port) if port and port.isdigit() else 8080)


def is_elsewhere() -> bool:
    """Does the environment name a gateway on another machine? None is started in its place."""
    if os.environ.get("PENSTOCK_HOST") or os.environ.get("PENSTOCK_PORT"):
        return False  # an address to listen on is one of this machine's
    theirs = _ollama_host()
    return theirs is not None and _reached_at(theirs.host) not in _LOOPBACK


def _ollama_host() -> OllamaHost | None:
    return ollama_host(os.environ.get("OLLAMA_HOST", ""))


def _url(scheme: str, host: str, port: int) -> str:
    host = _reached_at(host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _reached_at(host: str) -> str:
    """An address to listen on everywhere is reached at this machine's own."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host
