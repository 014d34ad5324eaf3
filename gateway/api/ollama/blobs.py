"""HEAD and POST /api/blobs/{digest}: files to make models of, which are sent beforehand."""

from typing import Any

from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.types import ASGIApp

from gateway.api.bodies import body_pieces
from gateway.api.ollama.management import Kept, kept, record
from gateway.api.ollama.opening import opened
from gateway.api.ollama.uploads import checked_digest, received
from gateway.api.replies import JsonReply
from gateway.errors import NotFound

# No model is meant yet, so the files go where a model of no particular name would.
_ANY_MODEL = "*"


@route("/api/blobs/{digest:str}", http_method=[HttpMethod.HEAD], name="ollama.blobs")
async def check_blob(request: Request[Any, Any, Any]) -> ASGIApp:
    """Whether it is there: 200 or 404."""
    place, digest = await _asked(request)
    if not await place.library.has_blob(digest):
        raise NotFound(f"there is no blob {digest}")
    return JsonReply(b"")  # pyright: ignore[reportReturnType]


@route("/api/blobs/{digest:str}", http_method=[HttpMethod.POST], opt={"endpoint": "ollama.blobs"})
async def create_blob(request: Request[Any, Any, Any]) -> ASGIApp:
    """Take a file in, by way of this machine's disk: 201, or 200 if it was there."""
    gateway, call = opened(request)
    place, digest = await _asked(request)
    most = gateway.settings.max_blob_bytes
    if await place.library.has_blob(digest):
        async for _ in body_pieces(request, max_bytes=most):
            pass  # clients send it all before they read an answer
        return JsonReply(b"")  # pyright: ignore[reportReturnType]
    folder = gateway.settings.data_dir / "uploads"
    async with received(request, digest, folder=folder, max_bytes=most) as path:
        await record(gateway, call, "add_blob", place, {"digest": digest})
        await place.library.add_file(str(path), digest)
    return JsonReply(b"", status=201)  # pyright: ignore[reportReturnType]


async def _asked(request: Request[Any, Any, Any]) -> tuple[Kept, str]:
    digest = checked_digest(str(request.path_params["digest"]))
    return await kept(request, _ANY_MODEL), digest
