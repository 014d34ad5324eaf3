"""Which endpoints there are on which listener."""

import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.app import Listeners, app_of
from gateway.gateway import Gateway
from tests.fakes import ScriptedEngine
from tests.gateway.cli.test_serve import served
from tests.serving import scripted_gateway, settings_in, write_policy

PUBLIC = "http://localhost:8080"
ADMIN = "http://localhost:9090"


def a_gateway(directory: Path, **settings: Any) -> Gateway:
    return scripted_gateway(
        write_policy(directory / "policy"),
        {"scripted": ScriptedEngine.saying("hello")},
        settings=settings_in(directory, **settings),
    )


@asynccontextmanager
async def called(gateway: Gateway, url: str) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client on this machine; the URL's port is the one that its connections come by."""
    app: Any = app_of(gateway)
    transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 5000))
    async with gateway.running(), httpx.AsyncClient(transport=transport, base_url=url) as client:
        yield client


async def test_without_an_admin_port_everything_is_on_one_listener(tmp_path: Path) -> None:
    async with called(a_gateway(tmp_path), PUBLIC) as client:
        assert (await client.get("/admin/models")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200


SPELLINGS = [
    "/admin/models",
    "/admin/models/",
    "//admin/models",
    "/admin//models",
    "/./admin/models",
    "/v1/../admin/models",
    "/v1/..%2fadmin/models",
    "/%61dmin/models",
    "/ADMIN/models",
    "/admin/models;x=1",
    "/admin/models?x=/v1/models",
    "/admin%2fmodels",
    "/admin/models%00",
    "/admin\\models",
    "/v1/models/../../admin/models",
]


async def test_admin_endpoints_do_not_exist_on_the_public_listener(tmp_path: Path) -> None:
    async with called(a_gateway(tmp_path, admin_port=9090), PUBLIC) as client:
        for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
            for path in SPELLINGS:
                url = httpx.URL(PUBLIC).copy_with(raw_path=path.encode())
                status = (await client.request(method, url)).status_code
                # What is below /v1/ is the name of a model, or a path that the policy may pass on:
                # which methods there are (OPTIONS) is no secret, and no admin endpoint's.
                there = (404, 405, 204) if method == "OPTIONS" else (404, 405)
                assert status in (there if path.startswith("/v1/") else (404,)), path
        assert (await client.get("/v1/models")).status_code == 200


async def test_no_header_leads_from_one_listener_to_the_other(tmp_path: Path) -> None:
    hostile = [
        {"host": "localhost:9090"},
        {"x-forwarded-port": "9090"},
        {"x-forwarded-host": "localhost:9090"},
        {"forwarded": "host=localhost:9090"},
        {"host": "localhost/admin/models?"},
    ]
    async with called(a_gateway(tmp_path, admin_port=9090), PUBLIC) as client:
        for headers in hostile:
            answer = await client.get("/admin/models", headers=headers)
            assert answer.status_code in (400, 404), headers
        assert (await client.get("/v1/models")).status_code == 200


async def test_the_admin_listener_has_what_is_for_admins_and_health_alone(tmp_path: Path) -> None:
    async with called(a_gateway(tmp_path, admin_port=9090), ADMIN) as client:
        assert (await client.get("/admin/models")).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 404
        assert (await client.post("/v1/chat/completions", json={})).status_code == 404


async def test_a_connection_by_no_port_is_the_public_listeners(tmp_path: Path) -> None:
    app: Any = app_of(a_gateway(tmp_path, admin_port=9090))
    assert isinstance(app, Listeners)
    for server in (None, ("/run/penstock.sock", None)):
        statuses: list[int] = []

        async def send(message: Any, statuses: list[int] = statuses) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "method": "GET", "path": "/admin/models", "raw_path": b"/admin/models",
            "query_string": b"", "headers": [], "server": server, "client": None,
            "root_path": "", "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        await app(scope, receive, send)
        assert statuses == [404]


def test_serve_opens_both_listeners_and_says_where(tmp_path: Path) -> None:
    with served(tmp_path, PENSTOCK_ADMIN_PORT="0") as (process, url):
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"for admins (http://127\.0\.0\.1:\d+)/admin", line)
        assert found, line
        answers = [
            httpx.get(f"{each}{path}", timeout=10).status_code
            for each in (url, found[1])
            for path in ("/admin/models", "/v1/models", "/healthz")
        ]
        process.terminate()

    assert answers == [404, 200, 200, 200, 404, 200]


def test_one_port_for_both_is_refused(tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--port", "18999", "--host", "127.0.0.1"],
        capture_output=True, text=True, timeout=60,
        env={"PENSTOCK_ADMIN_PORT": "18999", "PENSTOCK_ADMIN_HOST": "127.0.0.2",
             "PENSTOCK_DATA_DIR": str(tmp_path), "PATH": "/usr/bin:/bin",
             "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip

    assert shown.returncode == 1
    assert "PENSTOCK_ADMIN_PORT is 18999" in shown.stderr
