"""POST /api/pull: fetch a model from a registry, Hugging Face or a URL."""

from typing import Any

from litestar import Request, post
from litestar.types import ASGIApp

from gateway.api.ollama.management import transferred


@post("/api/pull", name="ollama.pull", status_code=200)
async def pull_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Fetch it, and tell how far it is; what was fetched stays if the caller leaves."""
    return await transferred(request, "pull")
