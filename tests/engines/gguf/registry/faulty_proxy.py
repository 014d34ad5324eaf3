"""An HTTP proxy that answers some requests by itself, as the front of a busy registry does."""

import contextlib
from collections.abc import AsyncGenerator, Callable

import httpx
from aiohttp import web

Chosen = Callable[[web.Request], bool]


class FaultyProxy:
    """Answers 503 to what `refuses` chooses; with `passes_on` after it arrived."""

    def __init__(self, port: int, refuses: Chosen, *, passes_on: bool = False) -> None:
        self._server_port = port
        self._refuses = refuses
        self._passes_on = passes_on
        self.host = ""
        self.requests: list[tuple[str, int, str | None]] = []  # method, bytes, range

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator["FaultyProxy"]:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.host = f"127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        said = (request.method, len(body), request.headers.get("Content-Range"))
        self.requests.append(said)
        is_refused = self._refuses(request)
        if is_refused and not self._passes_on:
            raise web.HTTPServiceUnavailable
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{self._server_port}{request.path_qs}"
            answer = await client.request(
                request.method, url, headers=dict(request.headers), content=body
            )
        if is_refused and answer.status_code < 300:
            raise web.HTTPServiceUnavailable
        headers = {k: v for k, v in answer.headers.items() if k != "content-length"}
        return web.Response(status=answer.status_code, headers=headers, body=answer.content)
