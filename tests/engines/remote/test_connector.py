import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engines.errors import Unavailable
from engines.protocol import Finished
from engines.remote.upstream import Question
from tests.engines.remote.conftest import (
    GET,
    Build,
    Open,
    answer_of,
    events_of,
    relaying,
    until,
)
from tests.upstream import Upstream, head, playing, sending

BODY = b'{"model":"public","messages":[]}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody has signed but itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "upstream")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "upstream.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture
def secure(certificate: Path) -> Iterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with playing(context) as upstream:
        yield upstream


def url_of(upstream: Upstream) -> str:
    return upstream.base_url.replace("http:", "https:")


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    build: Build, secure: Upstream
) -> None:
    engine = build(base_url=url_of(secure))
    await engine.start()

    with pytest.raises(Unavailable, match="certificate that is not trusted"):
        await events_of(engine, relaying(BODY))

    assert secure.requests == []


async def test_a_certificate_that_the_policy_trusts_is_taken(
    build: Build, secure: Upstream, certificate: Path
) -> None:
    engine = build(base_url=url_of(secure), ca_file=str(certificate))
    await engine.start()

    for _ in range(2):
        assert isinstance((await events_of(engine, relaying(BODY)))[-1], Finished)

    assert secure.num_accepted == 1


async def test_another_host_may_not_use_that_certificate(
    build: Build, secure: Upstream, certificate: Path
) -> None:
    url = url_of(secure).replace("127.0.0.1", "localhost")
    engine = build(base_url=url, ca_file=str(certificate))
    await engine.start()

    with pytest.raises(Unavailable):
        await events_of(engine, relaying(BODY))


async def test_checking_can_be_switched_off(build: Build, secure: Upstream) -> None:
    engine = build(base_url=url_of(secure), verify=False)
    await engine.start()

    assert isinstance((await events_of(engine, relaying(BODY)))[-1], Finished)


async def test_a_file_of_certificates_that_is_not_there_is_told_at_the_start(build: Build) -> None:
    with pytest.raises(Unavailable, match="ca_file"):
        await build(base_url="https://127.0.0.1/v1", ca_file="/no/such.pem").start()


async def test_an_upstream_that_does_not_speak_tls_is_unavailable(
    build: Build, upstream: Upstream
) -> None:
    engine = build(base_url=url_of(upstream), connect_seconds=0.5)
    await engine.start()

    with pytest.raises(Unavailable, match="did not take the connection in time"):
        await events_of(engine, relaying(BODY))

    await until(upstream, lambda: upstream.num_open == 0)


async def test_much_goes_through_tls_in_both_directions(
    opened: Open, secure: Upstream, certificate: Path
) -> None:
    client = await opened(base_url=url_of(secure), ca_file=str(certificate))
    secure.scene = sending(head(content_length=3_000_000) + b"x" * 3_000_000)
    question = Question(path="chat/completions", body=b"y" * 3_000_000)

    status, body = await answer_of(client, question)

    assert (status, len(body), len(secure.last.body)) == (200, 3_000_000, 3_000_000)


async def test_a_name_that_does_not_resolve_is_told(opened: Open) -> None:
    client = await opened(base_url="http://nowhere.invalid/v1")

    with pytest.raises(Unavailable, match="name that does not resolve"):
        await client.ask(GET)


async def test_nobody_listening_is_told(opened: Open) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        client = await opened(base_url=f"http://127.0.0.1:{bound.getsockname()[1]}/v1")

        with pytest.raises(Unavailable, match="cannot be connected to"):
            await client.ask(GET)


async def test_a_name_is_resolved_once_for_many_and_again_when_it_is_old(
    opened: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, lambda _: "127.0.0.1")
    client = await opened(base_url=f"http://up.example:{upstream.port}/v1")

    replies = await asyncio.gather(*(client.ask(GET) for _ in range(5)))
    assert (len(asked), upstream.num_accepted) == (1, 5)

    monkeypatch.setattr("engines.remote.connector.NAME_SECONDS", 0.0)
    replies.append(await client.ask(GET))
    assert (len(asked), upstream.num_accepted) == (2, 6)
    for reply in replies:
        reply.close()


async def test_one_who_leaves_does_not_take_the_name_from_those_who_wait(
    opened: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = asyncio.Event()
    asked = resolving(monkeypatch, lambda _: "127.0.0.1", may_go_on)
    client = await opened(base_url=f"http://up.example:{upstream.port}/v1")
    first, second = (asyncio.create_task(answer_of(client)) for _ in range(2))
    while not asked:  # noqa: ASYNC110 - until it is being resolved
        await asyncio.sleep(0)

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    may_go_on.set()

    assert (await second)[0] == 200
    assert len(asked) == 1


async def test_a_name_that_turns_into_a_forbidden_address_is_not_followed(
    opened: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolving(monkeypatch, lambda before: "169.254.169.254" if before else "127.0.0.1")
    monkeypatch.setattr("engines.remote.connector.NAME_SECONDS", 0.0)
    client = await opened(base_url=f"http://up.example:{upstream.port}/v1")
    reply = await client.ask(GET)

    with pytest.raises(Unavailable, match="cannot be connected to"):
        await client.ask(GET)
    assert (len(asked), upstream.num_accepted) == (2, 1)
    reply.close()


async def test_the_next_address_is_tried_where_one_does_not_answer(
    opened: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, lambda _: ("169.254.169.254", "127.0.0.1"))
    client = await opened(base_url=f"http://up.example:{upstream.port}/v1")

    assert (await answer_of(client))[0] == 200


async def test_ipv6_literals_are_connected_to(opened: Open) -> None:
    hosts: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hosts.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        writer.write(head(content_length=2) + b"{}")
        writer.close()

    try:
        server = await asyncio.start_server(serve, "::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = server.sockets[0].getsockname()[1]
    client = await opened(base_url=f"http://[::1]:{port}/v1")

    assert await answer_of(client) == (200, b"{}")

    assert f"host: [::1]:{port}\r\n" in hosts[0]
    server.close()


@pytest.mark.parametrize("leaves", ["its asker", "everybody"])
async def test_leaving_while_it_connects_leaves_nothing_behind(
    opened: Open, upstream: Upstream, leaves: str
) -> None:
    client = await opened(base_url=url_of(upstream))  # which never answers a TLS greeting
    waiting = asyncio.create_task(client.ask(GET))
    await until(upstream, lambda: upstream.num_open == 1)

    if leaves == "everybody":
        await client.close()
        with pytest.raises(Unavailable, match="was closed"):
            await waiting
    else:
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert client.num_open == 0
    await until(upstream, lambda: upstream.num_open == 0)


def resolving(
    monkeypatch: pytest.MonkeyPatch,
    to: Callable[[int], str | tuple[str, ...]],
    may_go_on: asyncio.Event | None = None,
) -> list[str]:
    """Have names resolve to what `to` says, given how often that was asked; the names asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int, **_: object) -> Sequence[tuple[object, ...]]:
        asked.append(host)
        if may_go_on is not None:
            await may_go_on.wait()
        told = to(len(asked) - 1)
        hosts = (told,) if isinstance(told, str) else told
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    return asked
