import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engines.errors import Unavailable
from engines.protocol import Finished
from tests.engines.remote.conftest import Build, events_of, relaying
from tests.upstream import Upstream, playing

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

    with pytest.raises(Unavailable):
        await events_of(engine, relaying(BODY))
