"""GET /api/version, and GET / as clients ask it to see whether a server is there.

Clients hold the version against the least that they work with, so it is that of the
Ollama whose API this is; our own is beside it. Several compare the text of `/` whole.
"""

from importlib import metadata
from typing import Any

import msgspec
from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.types import ASGIApp

from gateway.api.replies import JsonReply

OLLAMA_VERSION = "0.33.0"
RUNNING = b"Ollama is running"


@route("/api/version", http_method=[HttpMethod.GET, HttpMethod.HEAD], name="ollama.version")
async def show_version(request: Request[Any, Any, Any]) -> ASGIApp:
    """Which Ollama this is like, and which Penstock it is."""
    versions = {"version": OLLAMA_VERSION, "penstock": metadata.version("penstock")}
    return JsonReply(msgspec.json.encode(versions))  # pyright: ignore[reportReturnType]


@route("/", http_method=[HttpMethod.GET, HttpMethod.HEAD], opt={"endpoint": "ollama.version"})
async def show_running(request: Request[Any, Any, Any]) -> ASGIApp:
    """The words that clients look for."""
    headers = {"content-type": "text/plain; charset=utf-8"}
    return JsonReply(RUNNING, headers=headers)  # pyright: ignore[reportReturnType]
