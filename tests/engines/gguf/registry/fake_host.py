"""A web server that serves what a test puts there, honestly or not.

Honest answers have ranges and ETags. A test makes one dishonest by putting a
function in `faults`, which gets the request and the content and answers itself.
"""

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
TYPE = "application/vnd.ollama.image."


class FakeHost:
    """`files` by path; `requests` are the paths asked for, with their headers, in order."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Fault] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.host = ""

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @contextlib.asynccontextmanager
    async def running(self, name: str = "127.0.0.1") -> AsyncGenerator["FakeHost"]:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.host = f"{name}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    def put_model(self, repository: str, contents: dict[str, bytes], **changes: Any) -> None:
        """A model at a registry; `changes` are made to its manifest."""
        manifest = {
            "schemaVersion": 2,
            "layers": [
                {
                    "mediaType": TYPE + kind,
                    "digest": self.put_blob(repository, content),
                    "size": len(content),
                }
                for kind, content in contents.items()
            ],
            **changes,
        }
        self.files[f"/v2/{repository}/manifests/latest"] = json.dumps(manifest).encode()

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.files[f"/v2/{repository}/blobs/{digest}"] = content
        return digest

    def blob_path(self, repository: str, content: bytes) -> str:
        return f"/v2/{repository}/blobs/sha256:{hashlib.sha256(content).hexdigest()}"

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers of every request for a path."""
        return [headers for asked, headers in self.requests if asked == path]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.headers)))
        content = self.files.get(request.path)
        if fault := self.faults.get(request.path):
            return await fault(request, content or b"")
        if content is None:
            raise web.HTTPNotFound
        return ranged(request, content)


def ranged(
    request: web.Request, content: bytes, versions: Mapping[str, str] | None = None
) -> web.Response:
    """An honest answer; `versions` are the headers that say which version it is."""
    if versions is None:
        versions = {"ETag": f'"{hashlib.sha256(content).hexdigest()[:16]}"'}
    headers = dict(versions)
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    if found is None or request.headers.get("If-Range") not in (None, *versions.values()):
        return web.Response(body=content, headers=headers)
    first, last = int(found[1]), min(int(found[2]), len(content) - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return web.Response(status=206, body=content[first : last + 1], headers=headers)


def redirect_to(url: str) -> Fault:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": url})

    return fault


def status(code: int, **headers: str) -> Fault:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=code, headers=named, text="no")

    return fault


async def endless(request: web.Request, content: bytes) -> web.StreamResponse:
    """Says nothing of a length, and goes on for ever."""
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    if found:
        response.headers["Content-Range"] = f"bytes {found[1]}-{found[2]}/{len(content)}"
    response.enable_chunked_encoding()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


async def whole(request: web.Request, content: bytes) -> web.StreamResponse:
    """Knows nothing of ranges."""
    return web.Response(body=content)


async def silent(request: web.Request, content: bytes) -> web.StreamResponse:
    """Takes the request and never answers."""
    await asyncio.Event().wait()
    raise AssertionError
