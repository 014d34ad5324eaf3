import threading
from collections.abc import Iterator

import httpx
import pytest

from gateway.errors import IssuerUnavailable
from gateway.oidc.fetching import FetchFailed, fetch_json
from tests.gateway.oidc.office import open_office, trusting
from tests.identity_provider import Answer, IdentityProvider, identity_provider

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        yield provider


async def fetched(provider: IdentityProvider) -> object:
    async with httpx.AsyncClient() as client:
        return await fetch_json(client, f"{provider.url}/keys")


def redirect(to: str) -> Answer:
    return 302, {"location": to}, b""


async def test_a_redirect_on_the_same_host_is_followed(provider: IdentityProvider) -> None:
    provider.answers["/keys"] = lambda: redirect("/moved")
    provider.answers["/moved"] = lambda: (200, {}, b'{"here": 1}')

    assert await fetched(provider) == {"here": 1}


async def test_a_redirect_to_another_host_is_not_followed(provider: IdentityProvider) -> None:
    with identity_provider() as other:
        for target in (
            f"{other.url}/keys",
            other.url.replace("http:", "") + "/keys",
            f"http://localhost:{provider.url.rpartition(':')[2]}/keys",
            "file:///etc/passwd",
            "https://user@evil.example/",
        ):
            provider.answers["/keys"] = lambda target=target: redirect(target)
            with pytest.raises(FetchFailed, match="another host"):
                await fetched(provider)

        assert other.requests == []


async def test_a_redirect_without_end_is_left(provider: IdentityProvider) -> None:
    provider.answers["/keys"] = lambda: redirect("/keys")

    with pytest.raises(FetchFailed, match="again and again"):
        await fetched(provider)
    assert len(provider.requests) == 4


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((500, {}, b"{}"), "500"),
        ((204, {}, b""), "204"),
        ((200, {}, b"[1]"), "no JSON object"),
        ((200, {}, b'{"a": 1, "a": 2}'), "twice"),
        ((200, {}, b'{"a": NaN}'), "NaN"),
        ((200, {}, b"{" + b" " * 600_000 + b"}"), "KiB"),
        ((200, {"content-encoding": "gzip"}, b"\x1f\x8b"), "compressed"),
    ],
)
async def test_what_is_no_small_json_object_is_refused(
    provider: IdentityProvider, answer: Answer, why: str
) -> None:
    provider.answers["/keys"] = lambda: answer

    with pytest.raises(FetchFailed, match=why):
        await fetched(provider)


async def test_an_issuer_that_hangs_is_given_up(
    provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.oidc.fetching.FETCH_SECONDS", 0.05)
    let_go = threading.Event()

    def hang() -> Answer:
        let_go.wait(30)
        return 200, {}, b"{}"

    provider.answers["/keys"] = hang
    try:
        with pytest.raises(FetchFailed, match="did not answer"):
            await fetched(provider)
    finally:
        let_go.set()


async def test_nobody_there_is_a_reason_and_no_traceback() -> None:
    async with httpx.AsyncClient() as client:
        with pytest.raises(FetchFailed, match="ConnectError"):
            await fetch_json(client, "http://127.0.0.1:1/keys")


@pytest.mark.parametrize(
    "document",
    [
        '{{"issuer": "https://evil.example", "jwks_uri": "{url}/keys"}}',
        '{{"issuer": "{url}/", "jwks_uri": "{url}/keys"}}',
        '{{"jwks_uri": "{url}/keys"}}',
        '{{"issuer": "{url}"}}',
        '{{"issuer": "{url}", "jwks_uri": 7}}',
        '{{"issuer": "{url}", "jwks_uri": "http://login.example.com/keys"}}',
        '{{"issuer": "{url}", "jwks_uri": "file:///etc/passwd"}}',
    ],
)
async def test_a_discovery_document_that_is_not_the_issuers_own_is_not_believed(
    provider: IdentityProvider, document: str
) -> None:
    body = document.format(url=provider.url).encode()
    provider.answers[DISCOVERY] = lambda: (200, {}, body)

    async with open_office(corp=trusting(provider)) as office:
        with pytest.raises(IssuerUnavailable):
            await office.principal(provider.token())

    assert provider.requests == [DISCOVERY]
