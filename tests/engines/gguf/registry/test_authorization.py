"""Logins and tokens, and where redirects may not take them."""

from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from engines.errors import Unavailable
from engines.gguf.registry.authorization import Authorization
from engines.gguf.registry.web import Refused, Web
from tests.engines.gguf.registry.conftest import MANIFEST, WEIGHTS, weights_path
from tests.engines.gguf.registry.fake_host import (
    FakeHost,
    Fault,
    ranged,
    redirect_to,
    status,
)
from tests.engines.gguf.registry.pulling import (
    QUICK,
    blob,
    pulled,
    refused,
)


async def test_a_redirect_to_another_host_takes_no_credentials_along(
    host: FakeHost, elsewhere: FakeHost, tmp_path: Path
) -> None:
    host.faults["/token"] = _token("s3cret")
    challenge = f'Bearer realm="{host.url}/token",service="x",scope="repository:team/tiny:pull"'
    elsewhere.faults["/signed"] = redirect_to(f"{elsewhere.url}/store")
    elsewhere.files["/store"] = WEIGHTS

    async def wants_token(request: web.Request, content: bytes) -> web.StreamResponse:
        if request.headers.get("Authorization") != "Bearer s3cret":
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if request.path == MANIFEST:
            return ranged(request, content)
        return web.Response(status=307, headers={"Location": f"{elsewhere.url}/signed"})

    host.faults[MANIFEST] = host.faults[weights_path(host)] = wants_token

    await pulled(tmp_path, f"{host.host}/team/tiny")

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    assert len(elsewhere.requests) >= 10
    assert not any("Authorization" in headers for _, headers in elsewhere.requests)
    assert all("Cookie" not in headers for _, headers in elsewhere.requests)


async def test_a_redirect_that_comes_back_has_lost_its_credentials(
    host: FakeHost, elsewhere: FakeHost, tmp_path: Path
) -> None:
    folder = _docker_login(tmp_path, host)
    host.faults[MANIFEST] = _wants_login(redirect_to(f"{elsewhere.url}/there"))
    elsewhere.faults["/there"] = redirect_to(f"{host.url}/back")
    host.files["/back"] = host.files[MANIFEST]

    await pulled(
        tmp_path / "models", f"{host.host}/team/tiny", environment={"DOCKER_CONFIG": str(folder)}
    )

    assert host.asked(MANIFEST)[-1]["Authorization"].startswith("Basic ")
    assert "Authorization" not in host.asked("/back")[0]
    assert "Authorization" not in elsewhere.asked("/there")[0]


@pytest.mark.parametrize(
    "location",
    ["", "file:///etc/passwd", "ftp://x/y", "javascript:x", "http://u:p@x/", "http://["],
)
async def test_a_redirect_to_what_is_no_address_is_refused(
    host: FakeHost, tmp_path: Path, location: str
) -> None:
    host.faults[weights_path(host)] = redirect_to(location)

    assert "which is no URL" in await refused(tmp_path, host)


async def test_redirects_that_never_end_do(host: FakeHost, tmp_path: Path) -> None:
    host.faults[MANIFEST] = redirect_to(f"{host.url}{MANIFEST}")

    assert "redirects more than 5 times" in await refused(tmp_path, host)
    assert len(host.requests) == 6


async def test_a_login_is_shown_to_its_own_registry_and_its_own_realm(
    host: FakeHost, tmp_path: Path
) -> None:
    folder = _docker_login(tmp_path, host)
    host.faults["/token"] = _token("t")
    challenge = f'Bearer realm="{host.url}/token",service="reg",scope="repository:team/tiny:pull"'
    host.faults[MANIFEST] = status(401, WWW_Authenticate=challenge)

    said = await refused(tmp_path / "models", host, environment={"DOCKER_CONFIG": str(folder)})

    assert host.asked("/token")[0]["Authorization"].startswith("Basic ")
    assert "does not give us" in said
    assert len(host.requests) == 3  # refused, token, refused for good


async def test_a_realm_elsewhere_is_asked_without_a_login(
    host: FakeHost, elsewhere: FakeHost, tmp_path: Path
) -> None:
    folder = _docker_login(tmp_path, host)
    elsewhere.faults["/token"] = status(401)
    host.faults[MANIFEST] = status(
        401, WWW_Authenticate=f'Bearer realm="{elsewhere.url}/token",service="x"'
    )

    said = await refused(tmp_path / "models", host, environment={"DOCKER_CONFIG": str(folder)})

    assert "Authorization" not in elsewhere.asked("/token")[0]
    assert "is not shown to localhost" in said


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b'{"token":7}', b'{"token":"a b"}', b'{"token":"a\\nb"}', b"[" * 50_000]
)
async def test_a_token_that_is_none_is_refused(
    host: FakeHost, tmp_path: Path, answer: bytes
) -> None:
    host.files["/token"] = answer
    host.faults[MANIFEST] = status(401, WWW_Authenticate=f'Bearer realm="{host.url}/token"')

    assert "gives no token in its answer" in await refused(tmp_path, host)


async def test_a_token_that_runs_out_in_the_middle_is_renewed(
    host: FakeHost, tmp_path: Path
) -> None:
    tokens = iter(f"t{number}" for number in range(100))
    valid = {"now": "", "uses": "0"}

    async def token(request: web.Request, content: bytes) -> web.StreamResponse:
        valid["now"], valid["uses"] = next(tokens), "3"
        return web.json_response({"token": valid["now"]})

    async def wants_token(request: web.Request, content: bytes) -> web.StreamResponse:
        uses = int(valid["uses"])
        if request.headers.get("Authorization") != f"Bearer {valid['now']}" or not uses:
            challenge = f'Bearer realm="{host.url}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        valid["uses"] = str(uses - 1)
        return ranged(request, content)

    host.faults["/token"] = token
    host.faults[MANIFEST] = host.faults[weights_path(host)] = wants_token

    await pulled(tmp_path, f"{host.host}/team/tiny", num_streams=1)

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    assert len(host.asked("/token")) == 2


async def test_a_token_is_asked_for_over_tls_only_where_the_registry_is(tmp_path: Path) -> None:
    registry = URL("https://registry.example.com")
    challenge = {"WWW-Authenticate": 'Bearer realm="http://registry.example.com/token"'}
    async with Web(QUICK.patience) as session:
        with pytest.raises(Unavailable, match=r"sends us to http://registry\.example\.com"):
            await Authorization(session, registry, None).renew(
                Refused(registry, 401, challenge, "")
            )


def _token(value: str) -> Fault:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        return web.json_response({"token": value})

    return fault


def _wants_login(then: Fault) -> Fault:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return await then(request, content)

    return fault


def _docker_login(tmp_path: Path, host: FakeHost) -> Path:
    folder = tmp_path / "docker"
    folder.mkdir()
    # "me:secret", as `docker login` writes it.
    (folder / "config.json").write_text(
        '{"auths": {"%s": {"auth": "bWU6c2VjcmV0"}}}' % host.host  # noqa: UP031
    )
    return folder
