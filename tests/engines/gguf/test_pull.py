"""Pulls of plain URLs, and what names may mean."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiohttp import web

from engines.errors import ModelNotFound, RequestRefused, Unavailable
from engines.gguf.files.folder import ModelFolder
from engines.gguf.library import Library
from engines.gguf.pull import Pull
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.origin import is_loopback, origin_of
from tests.engines.gguf.registry.fake_host import FakeHost, ranged, whole
from tests.engines.gguf.registry.pulling import QUICK, blob, check, leftovers, pulled
from tests.gguf_files import write_gguf

FILE = "/files/Tiny%20model-Q8_0.gguf"
PATH = "/files/Tiny model-Q8_0.gguf"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", layers=1).read_bytes()


@pytest.fixture
async def host(weights: bytes) -> AsyncGenerator[FakeHost]:
    async with FakeHost().running() as running:
        running.files[PATH] = weights
        yield running


async def test_a_file_behind_a_url_is_a_model_named_after_it(
    host: FakeHost, tmp_path: Path, weights: bytes
) -> None:
    steps = await pulled(tmp_path, f"{host.url}{FILE}?download=true")

    file = Library(tmp_path, {}).look_up("Tiny-model-Q8_0")
    assert file.path.read_bytes() == weights
    assert "pulling Tiny model-Q8_0.gguf" in {step.status for step in steps}
    check(tmp_path)


async def test_a_file_that_has_not_changed_is_not_fetched_again(
    host: FakeHost, tmp_path: Path
) -> None:
    await asyncio.gather(*(pulled(tmp_path, f"{host.url}{FILE}") for _ in range(2)))
    before = len(host.requests)

    await pulled(tmp_path, f"{host.url}{FILE}")

    assert len(host.requests) == before + 1
    host.files[PATH] = changed = host.files[PATH] + b"changed"
    await pulled(tmp_path, f"{host.url}{FILE}")
    assert blob(tmp_path, changed).exists()
    assert len(list((tmp_path / "blobs").glob("sha256-*"))) == 2  # weights and configuration


async def test_a_file_that_changes_while_it_is_fetched_is_no_mixture(
    host: FakeHost, tmp_path: Path, weights: bytes
) -> None:
    changed = weights[:-4] + b"new!"
    answers = iter(range(100))

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        return ranged(request, weights if next(answers) < 3 else changed)

    host.faults[PATH] = fault

    with pytest.raises(Unavailable, match="has changed meanwhile"):
        await pulled(tmp_path, f"{host.url}{FILE}", num_streams=1, part_bytes=10_000)
    await pulled(tmp_path, f"{host.url}{FILE}")

    assert Library(tmp_path, {}).find("Tiny-model-Q8_0").read_bytes() == changed
    assert all(path.startswith("blobs/.urls/") for path in leftovers(tmp_path))


async def test_a_server_without_ranges_or_versions_will_do(
    host: FakeHost, tmp_path: Path, weights: bytes
) -> None:
    host.faults[PATH] = whole

    await pulled(tmp_path, f"{host.url}{FILE}")

    assert blob(tmp_path, weights).read_bytes() == weights


async def test_a_file_without_a_length_is_refused(host: FakeHost, tmp_path: Path) -> None:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(content)
        return response

    host.faults[PATH] = fault

    with pytest.raises(Unavailable, match="does not say how long 'Tiny model-Q8_0"):
        await pulled(tmp_path, f"{host.url}{FILE}")


async def test_what_is_no_model_has_no_name(host: FakeHost, tmp_path: Path) -> None:
    host.files["/page.gguf"] = b"<html>please log in</html>"

    with pytest.raises(RequestRefused, match="this is no GGUF model"):
        await pulled(tmp_path, f"{host.url}/page.gguf")
    with pytest.raises(ModelNotFound):
        await pulled(tmp_path, f"{host.url}/nowhere.gguf")

    assert not (tmp_path / "manifests").exists()
    assert not list((tmp_path / "blobs").glob("sha256-*"))


async def test_a_folder_that_is_only_read_takes_nothing(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path, is_writable=False)
    pull = Pull(folder, "127.0.0.1:9/a/b", credentials=Credentials({}), how=QUICK)

    with pytest.raises(RequestRefused, match="only read here"):
        async for _ in pull.steps():
            pass


@pytest.mark.parametrize(
    ("text", "scheme", "display"),
    [
        ("qwen3", "https", "qwen3:latest"),
        ("reg.example.com/a/b:c", "https", "reg.example.com/a/b:c"),
        ("http://reg.example.com/a/b", "http", "reg.example.com/a/b:latest"),
        ("https://localhost:5000/a/b", "https", "localhost:5000/a/b:latest"),
        ("localhost:5000/a/b", "http", "localhost:5000/a/b:latest"),
        ("127.0.0.1:5000/a/b", "http", "127.0.0.1:5000/a/b:latest"),
    ],
)
def test_tls_is_left_out_on_this_machine_and_where_one_says_so(
    text: str, scheme: str, display: str
) -> None:
    origin = origin_of(text)

    assert (origin.scheme, origin.name.display, origin.url) == (scheme, display, None)


@pytest.mark.parametrize(
    "text",
    ["", "../x", "/etc/passwd", "file:///etc/passwd", "https://u:p@h/m.gguf", "http:///m.gguf",
     "https://h/....gguf", "./model.gguf"],
)  # fmt: skip
def test_what_can_be_pulled_is_never_a_file_of_this_machine(text: str) -> None:
    with pytest.raises(RequestRefused):
        origin_of(text)


def test_only_this_machine_is_this_machine() -> None:
    assert is_loopback("localhost:5000")
    assert is_loopback("127.0.0.2")
    assert not is_loopback("localhost.example.com")
    assert not is_loopback("128.0.0.1:5000")
