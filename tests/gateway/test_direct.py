"""Calls of model endpoints go past Litestar, and nobody can tell."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import Call, hookimpl
from gateway.app import Listeners, app_of
from gateway.direct import DirectRoutes
from gateway.hooks import Hooks
from tests.fakes import ScriptedEngine
from tests.serving import scripted_gateway, write_policy

BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}


class Broken:
    """A plugin whose `observe` fails before the call begins."""

    @hookimpl
    @asynccontextmanager
    async def observe(self, call: Call) -> AsyncGenerator[None, None]:
        raise RuntimeError("no disk")
        yield


class Passed:
    """Keeps which paths came by Litestar."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.paths: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        await self._app(scope, receive, send)


class Stage:
    """A running gateway, a client of it, and what Litestar saw."""

    def __init__(self, app: Listeners, client: httpx.AsyncClient) -> None:
        self.client = client
        direct: DirectRoutes = app._public  # pyright: ignore[reportPrivateUsage]
        self.passed = Passed(direct.litestar)
        direct.litestar = self.passed  # pyright: ignore[reportAttributeAccessIssue]

    async def post(self, path: str, **more: Any) -> httpx.Response:
        return await self.client.post(path, json={**BODY, **more})


@asynccontextmanager
async def staged(directory: Path, *plugins: object) -> AsyncGenerator[Stage, None]:
    gateway = scripted_gateway(
        write_policy(directory / "policy"), {"scripted": ScriptedEngine.saying("hello")}
    )
    if plugins:
        added = [(f"added{index}", plugin) for index, plugin in enumerate(plugins)]
        gateway.hooks = Hooks([*gateway.hooks.plugins.items(), *added])
    app = app_of(gateway)
    transport = httpx.ASGITransport(
        app=app,  # pyright: ignore[reportArgumentType]
        client=("127.0.0.1", 5000),
    )
    async with (
        gateway.running(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as client,
    ):
        yield Stage(app, client)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
async def test_a_post_of_a_model_endpoint_goes_past_litestar(tmp_path: Path, path: str) -> None:
    async with staged(tmp_path) as stage:
        answer = await stage.post(path, stream=False)

        assert answer.status_code == 200
        assert stage.passed.paths == []


async def test_another_spelling_of_a_path_comes_by_litestar_to_the_same_answer(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path) as stage:
        direct = await stage.post("/v1/chat/completions")
        around = await stage.post("/v1//chat/completions/")

        assert stage.passed.paths == ["/v1//chat/completions/"]
        assert direct.status_code == around.status_code == 200
        assert direct.json()["choices"] == around.json()["choices"]
        assert set(direct.headers) == set(around.headers)


async def test_a_refusal_is_the_same_both_ways(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        direct = await stage.post("/v1/chat/completions", temperature=9)
        around = await stage.post("/v1/chat/completions/", temperature=9)

        assert direct.status_code == around.status_code == 400
        assert direct.json() == around.json()


async def test_other_methods_are_refused_as_anywhere(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        assert (await stage.client.put("/v1/completions", json=BODY)).status_code == 405
        assert (await stage.client.get("/api/chat")).status_code == 405
        assert stage.passed.paths == ["/v1/completions", "/api/chat"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/"])
async def test_an_observer_that_fails_is_answered_in_the_dialects_shape(
    tmp_path: Path, path: str
) -> None:
    async with staged(tmp_path, Broken()) as stage:
        answer = await stage.post(path)

        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal"
        assert answer.headers["x-request-id"].startswith("req_")
