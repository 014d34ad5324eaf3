"""Images are fetched from named hosts only, within bounds, and never from inside."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest

from engines.protocol import Image
from engines.remote.addresses import AddressRules
from gateway import BadRequest, Call
from plugins.image_urls import ImageUrls, ImageUrlsTable
from tests.fakes import ScriptedEngine
from tests.plugins.policies import call_of, policy_of
from tests.serving import Server, scripted_gateway, serving, write_policy

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
UNREACHABLE = r"image of host '127\.0\.0\.1' could not be fetched"
INSIDE = AddressRules(allow_private=True)


def answer(body: bytes = PNG, *, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if not any(name in headers for name in ("content_length", "transfer_encoding")):
        lines.append(f"content-length: {len(body)}")
    head = "\r\n".join([f"HTTP/1.1 {status}", *lines, "connection: close", "", ""])
    return head.encode() + body


class Host:
    """A server that answers by path, and notes what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {"/x.png": answer()}
        self.asked: list[bytes] = []
        self.port = 0

    def url(self, path: str = "/x.png", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @asynccontextmanager
    async def running(self) -> AsyncGenerator["Host", None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        found = self.answers.get(head.split(b" ")[1].decode())
        if found is None:
            await reader.read()  # says nothing until the other side has had enough
        else:
            writer.write(found)
        writer.close()


@pytest.fixture
async def host() -> AsyncGenerator[Host, None]:
    async with Host().running() as host:
        yield host


def asking(**table: object) -> Call:
    given = ImageUrlsTable(**({"hosts": ["127.0.0.1", "*.example.com"]} | table))  # type: ignore[arg-type]
    return call_of(policy_of(tables={"image_urls": given}))


async def fetched(
    url: str, *, rules: AddressRules | None = INSIDE, **table: object
) -> bytes | None:
    plugin = ImageUrls(schemes=("http",), rules=rules)
    async with plugin.running():
        return await plugin.fetch_image(asking(**table), url)


async def test_an_image_of_a_named_host_is_fetched_with_nothing_of_ours(host: Host) -> None:
    assert await fetched(host.url("/x.png")) == PNG

    [head] = host.asked
    names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
    assert names == {b"host", b"accept", b"accept-encoding", b"user-agent", b"connection"}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda host: host.url(host="localhost"), "images of host 'localhost' are not fetched"),
        (lambda host: f"https://127.0.0.1:{host.port}/", "must be a plain http:// URL"),
        (lambda host: f"http://me:secret@127.0.0.1:{host.port}/x.png", "must be a plain http"),
        (lambda host: "http:///x.png", "must be a plain|could not be fetched"),
        (lambda host: "http://[::1", "could not be fetched"),
        (lambda host: "http://example.com.evil.org/x.png", "are not fetched here"),
        (lambda host: f"http://a.example.com@127.0.0.2:{host.port}/x", "must be a plain http"),
    ],
)
async def test_no_other_address_is_asked(
    host: Host, make: Callable[[Host], str], reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        await fetched(make(host))

    assert "secret" not in str(caught.value)
    assert host.asked == []


async def test_a_private_address_reads_as_any_that_cannot_be_reached(host: Host) -> None:
    for url in (host.url(), "http://127.0.0.1:1/x.png"):
        with pytest.raises(BadRequest, match=UNREACHABLE):
            await fetched(url, rules=None)

    assert host.asked == []


async def test_redirects_are_followed_only_to_where_one_could_ask_at_first(host: Host) -> None:
    host.answers |= {
        "/near": answer(b"", status="302 Found", location="/x.png"),
        "/out": answer(b"", status="302 Found", location=host.url(host="localhost")),
        "/other": answer(b"", status="301 Moved", location="ftp://127.0.0.1/x"),
        "/round": answer(b"", status="307 Again", location="/round"),
    }

    assert await fetched(host.url("/near")) == PNG
    for path, reason in (
        ("/out", "'localhost' are not fetched"),
        ("/other", "must be a plain http"),
        ("/round", "could not be fetched"),
    ):
        with pytest.raises(BadRequest, match=reason):
            await fetched(host.url(path))
    assert len(host.asked) == 2 + 1 + 1 + 4


@pytest.mark.parametrize(
    "said",
    [
        answer(b"", status="404 Not Found"),
        answer(bytes(2000)),
        answer(bytes(10), content_length="2000"),
        answer(b"7d0\r\n" + bytes(2000) + b"\r\n0\r\n\r\n", transfer_encoding="chunked"),
        answer(content_encoding="gzip"),
        answer(content_length="500"),
        b"no HTTP at all\r\n\r\n",
        b"",
    ],
    ids=["404", "long", "says-long", "endless", "packed", "cut", "no-http", "nothing"],
)
async def test_what_is_wrong_too_large_or_broken_reads_the_same(host: Host, said: bytes) -> None:
    host.answers["/x.png"] = said

    with pytest.raises(BadRequest, match=UNREACHABLE) as caught:
        await fetched(host.url(), max_bytes=1000)

    assert caught.value.param == "messages"


async def test_a_host_that_says_nothing_is_given_up(host: Host) -> None:
    with pytest.raises(BadRequest, match="could not be fetched"):
        await fetched(host.url("/silent"), timeout_seconds=0.2)


@contextmanager
def served(directory: Path, hosts: str) -> Iterator[tuple[Server, ScriptedEngine]]:
    files = {
        "gateway.toml": f"""
            plugins = ["anonymous", "allow_lists", "defaults", "routing", "image_urls"]
            [anonymous]
            team = "me"
            [image_urls]
            hosts = {hosts}
        """,
        "teams.toml": '[me]\nmodels = ["chat-small"]\nendpoints = ["openai.chat"]',
    }
    engine = ScriptedEngine()
    with serving(scripted_gateway(write_policy(directory / "policy", files),
                                  {"scripted": engine})) as server:  # fmt: skip
        yield server, engine


def test_a_served_gateway_fetches_for_calls_that_may_be_made_and_reaches_nothing_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def fetch(self: ImageUrls, url: str, table: ImageUrlsTable) -> bytes:
        asked.append(url)
        return PNG if url.endswith("x.png") else b"<html>"

    def chat(server: Server, *urls: str, model: str = "chat-small") -> httpx.Response:
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        body = {"model": model, "messages": [{"role": "user", "content": parts}]}
        return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)

    with (
        served(tmp_path, '["*"]') as (server, engine),
        socket.create_server(("127.0.0.1", 0)) as inside,
    ):
        at = inside.getsockname()[1]
        refused = chat(server, f"https://127.0.0.1:{at}/x.png")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
        inside.settimeout(0)
        with pytest.raises(BlockingIOError):
            inside.accept()

        monkeypatch.setattr(ImageUrls, "_fetched", fetch)
        url = "https://pictures.example.com/x.png"
        assert chat(server, url, url).status_code == 200
        [message] = engine.requests[-1].messages
        assert message.parts == [Image(PNG, "image/png")] * 2
        assert asked == [url]

        assert chat(server, "https://pictures.example.com/page").status_code == 400
        asked.clear()
        assert chat(server, url, model="secret").status_code == 404
        assert chat(server, *(f"{url}?{n}" for n in range(17))).status_code == 400
        assert asked == []
