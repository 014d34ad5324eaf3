"""Registries that lie, loop and never end."""

import socket
from pathlib import Path

import pytest
from aiohttp import web

from engines.errors import Unavailable
from tests.engines.gguf.registry.conftest import MANIFEST, WEIGHTS, weights_path
from tests.engines.gguf.registry.fake_host import (
    FakeHost,
    endless,
    ranged,
    silent,
    whole,
)
from tests.engines.gguf.registry.pulling import (
    QUICK,
    blob,
    leftovers,
    pulled,
    refused,
)


async def test_a_registry_without_tls_is_told_apart_at_once(host: FakeHost, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1 does not answer in TLS.*: write http://"):
        await pulled(tmp_path, f"https://{host.host}/team/tiny")


async def test_an_honest_one_is_pulled_from(host: FakeHost, tmp_path: Path) -> None:
    await pulled(tmp_path, f"{host.host}/team/tiny")

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    assert len(host.asked(weights_path(host))) == 5  # parts of 64 KiB


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../../../tmp/evil",
        "../../evil",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63,
        "sha512:" + "0" * 64,
        "",
    ],
)
async def test_a_digest_is_never_a_path(host: FakeHost, tmp_path: Path, digest: str) -> None:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 4}
    host.put_model("team/tiny", {}, layers=[layer])

    assert "is not sha256:" in await refused(tmp_path / "models", host)
    assert list(tmp_path.rglob("*")) == []


async def test_a_blob_of_another_digest_is_thrown_away(host: FakeHost, tmp_path: Path) -> None:
    host.files[weights_path(host)] = bytes(len(WEIGHTS))

    assert "it was thrown away" in await refused(tmp_path, host)
    assert leftovers(tmp_path) == []


async def test_a_manifest_that_is_not_the_one_announced_is_refused(
    host: FakeHost, tmp_path: Path
) -> None:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        return web.Response(body=content, headers={"Docker-Content-Digest": "sha256:" + "0" * 64})

    host.faults[MANIFEST] = fault

    assert "sent another manifest than it says" in await refused(tmp_path, host)


@pytest.mark.parametrize("path", ["manifest", "blob"])
async def test_a_body_without_an_end_is_cut(host: FakeHost, tmp_path: Path, path: str) -> None:
    host.faults[MANIFEST if path == "manifest" else weights_path(host)] = endless

    said = await refused(tmp_path, host)

    assert ("sends more than 4194304 bytes" if path == "manifest" else "sends more than it") in said
    # The file is as long as it may become, however much was sent.
    assert all(p.stat().st_size <= len(WEIGHTS) for p in (tmp_path / "blobs").glob("*-partial"))


async def test_a_length_that_is_not_what_was_asked_for_is_refused(
    host: FakeHost, tmp_path: Path
) -> None:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = ranged(request, content)
        response.body = bytes(response.body or b"") + b"more"  # type: ignore[arg-type]
        return response

    host.faults[weights_path(host)] = fault

    assert "wants to send 65540 bytes where 65536 are missing" in await refused(tmp_path, host)


@pytest.mark.parametrize(
    "content_range",
    ["bytes 1-65536/300000", "bytes 0-65535/300001", "bytes */300000", "", "bytes 0-65535/x"],
)
async def test_another_range_than_asked_for_is_refused(
    host: FakeHost, tmp_path: Path, content_range: str
) -> None:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        return web.Response(
            status=206, body=content[:65536], headers={"Content-Range": content_range}
        )

    host.faults[weights_path(host)] = fault

    assert "was asked for bytes" in await refused(tmp_path, host)


async def test_a_server_without_ranges_sends_the_whole(host: FakeHost, tmp_path: Path) -> None:
    host.faults[weights_path(host)] = whole

    await pulled(tmp_path, f"{host.host}/team/tiny")

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS


async def test_a_server_without_ranges_that_always_breaks_off_is_given_up(
    host: FakeHost, tmp_path: Path
) -> None:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(content)
        await response.prepare(request)
        await response.write(content[:100_000])
        assert request.transport is not None
        request.transport.close()
        return response

    host.faults[weights_path(host)] = fault

    assert "broke off" in await refused(tmp_path, host)
    assert len(host.asked(weights_path(host))) < 20


async def test_an_encoded_body_is_refused(host: FakeHost, tmp_path: Path) -> None:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = ranged(request, content)
        response.headers["Content-Encoding"] = "gzip"  # a bomb, perhaps
        return response

    host.faults[weights_path(host)] = fault

    assert "sends the file encoded" in await refused(tmp_path, host)


async def test_a_server_that_never_answers_is_given_up(host: FakeHost, tmp_path: Path) -> None:
    host.faults[weights_path(host)] = silent
    patience = QUICK.patience.__class__(
        stall_seconds=0.05, max_failures=2, first_delay_seconds=0.001, connect_seconds=5
    )

    said = await refused(tmp_path, host, patience=patience)

    assert "the next pull goes on from there" in said


async def test_a_port_where_nobody_listens_is_told(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(Unavailable, match=r"127.0.0.1 cannot be reached: "):
            await pulled(tmp_path, f"127.0.0.1:{port}/team/tiny")


async def test_what_may_pass_is_tried_again(host: FakeHost, tmp_path: Path) -> None:
    answers = iter([503, 429])

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        code = next(answers, None)
        return ranged(request, content) if code is None else web.Response(status=code)

    host.faults[MANIFEST] = fault

    await pulled(tmp_path, f"{host.host}/team/tiny")

    assert len(host.asked(MANIFEST)) == 3


async def test_a_model_that_is_none_is_refused_before_a_byte_is_fetched(
    host: FakeHost, tmp_path: Path
) -> None:
    host.put_model("team/tiny", {"system": b"be kind"})

    assert "is no GGUF model: no layer is one" in await refused(tmp_path, host)
    assert len(host.requests) == 1
