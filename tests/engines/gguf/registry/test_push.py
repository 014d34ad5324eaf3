"""Pushes on whose way something breaks: what arrives is the model, or nothing."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from engines.errors import Unavailable
from engines.gguf.files.digests import digest_of
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.manifests import layer, new_manifest
from engines.gguf.files.names import parse_name
from engines.gguf.library import Library
from engines.gguf.push import Push
from engines.gguf.registry.credentials import Credentials
from tests.docker_registry import DockerRegistry, docker_registry
from tests.engines.gguf.registry.fake_host import FakeHost
from tests.engines.gguf.registry.faulty_proxy import FaultyProxy
from tests.engines.gguf.registry.pulling import QUICK, blob, pulled

PIECE_BYTES = 100_000
WEIGHTS = random.Random(5).randbytes(PIECE_BYTES + 40_000)
CONFIG = b'{"model_format":"gguf"}'


@pytest.fixture(scope="module")
def registry() -> Iterator[DockerRegistry]:
    with docker_registry() as running:
        yield running


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.gguf.push.PIECE_BYTES", PIECE_BYTES)


@pytest.mark.parametrize("passes_on", [False, True])
async def test_a_piece_that_a_busy_registry_refused_is_sent_again_whole(
    registry: DockerRegistry, tmp_path: Path, passes_on: bool
) -> None:
    name = f"busy/model-{int(passes_on)}"
    left = [1, 1]

    def refuses(request: web.Request) -> bool:
        # The first piece, and then the second, each once.
        which = request.method == "PATCH" and request.headers["Content-Range"][:2] != "0-"
        if request.method != "PATCH" or not left[which]:
            return False
        left[which] -= 1
        return True

    async with FaultyProxy(registry.port, refuses, passes_on=passes_on).running() as proxy:
        await _pushed(tmp_path / "a", f"{proxy.host}/{name}")

    await pulled(tmp_path / "b", f"{registry.host}/{name}")
    assert blob(tmp_path / "b", WEIGHTS).read_bytes() == WEIGHTS
    assert all(
        size == int(said.split("-")[1]) - int(said.split("-")[0]) + 1
        for method, size, said in proxy.requests
        if method == "PATCH" and said is not None
    )


async def test_a_registry_that_stays_busy_is_given_up(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    def refuses(request: web.Request) -> bool:
        return request.method == "PATCH"

    async with FaultyProxy(registry.port, refuses).running() as proxy:
        with pytest.raises(Unavailable, match="answers 503"):
            await _pushed(tmp_path, f"{proxy.host}/busy/never")


async def test_a_registry_that_loses_every_upload_is_given_up(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    """Each time the first piece arrives and is said not to have."""

    def refuses(request: web.Request) -> bool:
        return request.method == "PATCH"

    async with FaultyProxy(registry.port, refuses, passes_on=True).running() as proxy:
        with pytest.raises(Unavailable, match="does not go on with an upload"):
            await _pushed(tmp_path, f"{proxy.host}/busy/lost")

    assert len([1 for method, *_ in proxy.requests if method == "PATCH"]) < 10


async def test_a_token_that_runs_out_between_two_pieces_is_renewed(tmp_path: Path) -> None:
    tokens = iter(f"t{number}" for number in range(100))
    valid = {"now": "", "uses": 0}
    sent: list[bytes] = []

    async def token(request: web.Request, content: bytes) -> web.StreamResponse:
        valid.update(now=next(tokens), uses=2)
        return web.json_response({"token": valid["now"]})

    async def upload(request: web.Request, content: bytes) -> web.StreamResponse:
        body = await request.read()
        if request.headers.get("Authorization") != f"Bearer {valid['now']}" or not valid["uses"]:
            challenge = f'Bearer realm="{host.url}/token"'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        valid["uses"] = int(valid["uses"]) - 1
        if request.method == "PATCH":
            sent.append(body)
        return web.Response(status=202, headers={"Location": place})

    async with FakeHost().running() as host:
        place = "/v2/team/tiny/blobs/uploads/1"
        host.faults["/token"] = token
        for path in (place, "/v2/team/tiny/blobs/uploads/", "/v2/team/tiny/manifests/latest"):
            host.faults[path] = upload
        await _pushed(tmp_path, f"{host.host}/team/tiny")

    assert b"".join(sent) == WEIGHTS + CONFIG
    assert next(tokens) != "t1"  # it did run out


async def _pushed(folder: Path, name: str) -> None:
    """Push a model of two pieces, made by hand."""
    models = ModelFolder(folder)
    for content in (WEIGHTS, CONFIG):
        models.put(content, digest_of(content))
    config = layer("config", digest_of(CONFIG), len(CONFIG))
    manifest = new_manifest(config, [layer("model", digest_of(WEIGHTS), len(WEIGHTS))])
    models.write_manifest(parse_name(name), manifest)
    push = Push(Library(folder, {}), name, credentials=Credentials({}), patience=QUICK.patience)
    async for _ in push.steps():
        pass
