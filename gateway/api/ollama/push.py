"""POST /api/push: send a model to the registry that its name begins with."""

from typing import Any

from litestar import Request, post
from litestar.types import ASGIApp

from gateway.api.ollama.management import transferred


@post("/api/push", name="ollama.push", status_code=200)
async def push_model(request: Request[Any, Any, Any]) -> ASGIApp:
    """Send it, and tell how far it is."""
    return await transferred(request, "push")
