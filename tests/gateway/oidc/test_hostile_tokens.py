"""Tokens that somebody made up. Each is refused, and a good one right after it is not."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from gateway.oidc import TokenRefused, looks_like_token
from tests.gateway.oidc.office import Office, open_office, trusting
from tests.identity_provider import (
    IdentityProvider,
    b64,
    ec_key,
    identity_provider,
    public,
    rsa_key,
    signed,
)

Forge = Callable[[IdentityProvider], str]


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        provider.published.append(public(ec_key("ec")))
        yield provider


@pytest.fixture
async def office(provider: IdentityProvider) -> AsyncGenerator[Office, None]:
    policy = trusting(provider, algorithms=["RS256", "ES256"], authorized_parties=None)
    async with open_office(corp=policy) as office:
        yield office


def unsigned(p: IdentityProvider, algorithm: str, signature: str = "") -> str:
    return f"{b64(p.header(alg=algorithm))}.{b64(p.claims())}.{signature}"


def with_hmac(p: IdentityProvider, secret: bytes, **header: Any) -> str:
    content = f"{b64(p.header(alg='HS256', **header))}.{b64(p.claims())}"
    return f"{content}.{b64(hmac.digest(secret, content.encode(), hashlib.sha256))}"


def pem(p: IdentityProvider) -> bytes:
    assert isinstance(p.key, RSAKey)
    return p.key.as_pem(private=False)


def with_payload(p: IdentityProvider, text: str) -> str:
    return signed(p.header(), text.encode(), p.key)


def by_attacker(p: IdentityProvider, **header: Any) -> str:
    return signed(p.header(**header), p.claims(), rsa_key("attacker"))


def parts(p: IdentityProvider) -> list[str]:
    return p.token().split(".")


def with_double_claim(p: IdentityProvider, name: str, value: Any) -> str:
    text = json.dumps(p.claims())
    return with_payload(p, f'{text[:-1]}, "{name}": {json.dumps(value)}}}')


def other_team(p: IdentityProvider) -> str:
    header, _, signature = parts(p)
    return f"{header}.{b64(p.claims(team='apps'))}.{signature}"


def flipped(p: IdentityProvider) -> str:
    header, payload, signature = parts(p)
    middle = len(signature) // 2
    other = "A" if signature[middle] != "A" else "B"
    return f"{header}.{payload}.{signature[:middle]}{other}{signature[middle + 1 :]}"


DOUBLE_ALG = b'{"alg":"none","alg":"RS256","kid":"first"}'
ATTACKER_JWK = public(rsa_key("attacker"))

FORGED: dict[str, tuple[Forge, str]] = {
    # Signatures that are none.
    "alg none": (lambda p: unsigned(p, "none"), "malformed"),
    "alg none with a signature": (lambda p: unsigned(p, "none", "AAAA"), "algorithm"),
    "alg None": (lambda p: unsigned(p, "None", "AAAA"), "algorithm"),
    "alg nOnE": (lambda p: unsigned(p, "nOnE", "AAAA"), "algorithm"),
    "alg empty": (lambda p: unsigned(p, "", "AAAA"), "algorithm"),
    "no alg": (lambda p: signed(p.header(alg=None), p.claims(), p.key), "algorithm"),
    "alg in lower case": (lambda p: p.token(header={"alg": "rs256"}), "algorithm"),
    "alg with a space": (lambda p: p.token(header={"alg": "RS256 "}), "algorithm"),
    "alg a list": (lambda p: p.token(header={"alg": ["RS256"]}), "algorithm"),
    "alg a number": (lambda p: p.token(header={"alg": 256}), "algorithm"),
    "alg unknown": (lambda p: unsigned(p, "RS1", "AAAA"), "algorithm"),
    "alg RSA1_5": (lambda p: unsigned(p, "RSA1_5", "AAAA"), "algorithm"),
    "alg not listed": (lambda p: p.token(header={"alg": "PS256"}), "algorithm"),
    "empty signature": (lambda p: ".".join([*parts(p)[:2], ""]), "malformed"),
    "no signature": (lambda p: ".".join(parts(p)[:2]), "malformed"),
    "signature of zeros": (lambda p: ".".join([*parts(p)[:2], b64(bytes(256))]), "signature"),
    "signature cut short": (lambda p: p.token()[:-20], "signature"),
    "signature with a flipped bit": (flipped, "signature"),
    "another payload under the same signature": (other_team, "signature"),
    # A public key is no secret.
    "HS256 with the public key as PEM": (lambda p: with_hmac(p, pem(p)), "algorithm"),
    "HS256 with the public key as JWK": (
        lambda p: with_hmac(p, json.dumps(public(p.key)).encode()),
        "algorithm",
    ),
    "HS256 with an empty secret": (lambda p: with_hmac(p, b""), "algorithm"),
    "HS256 with a kid that is a file": (
        lambda p: with_hmac(p, b"", kid="../../../../dev/null"),
        "algorithm",
    ),
    # Keys that the token brings along, or says where to find.
    "signed by another key": (by_attacker, "signature"),
    "embedded jwk": (lambda p: by_attacker(p, jwk=ATTACKER_JWK), "header"),
    "embedded jwk and no kid": (lambda p: by_attacker(p, jwk=ATTACKER_JWK, kid=None), "header"),
    "jku of the attacker": (
        lambda p: by_attacker(p, jku="http://127.0.0.1:1/keys", kid="attacker"),
        "key_unknown",
    ),
    "x5u of the attacker": (lambda p: by_attacker(p, x5u="http://127.0.0.1:1/x"), "signature"),
    "x5c of the attacker": (lambda p: by_attacker(p, x5c=["AAAA"]), "signature"),
    "unknown kid": (lambda p: p.token(header={"kid": "unknown"}), "key_unknown"),
    "kid that is a path": (lambda p: p.token(header={"kid": "../../etc/passwd"}), "key_unknown"),
    "kid that is SQL": (lambda p: p.token(header={"kid": "' OR '1'='1"}), "key_unknown"),
    "kid that is a URL": (lambda p: p.token(header={"kid": "http://127.0.0.1:1/"}), "key_unknown"),
    "kid that is a number": (lambda p: p.token(header={"kid": 1}), "malformed"),
    "kid that is a list": (lambda p: p.token(header={"kid": ["first"]}), "malformed"),
    "kid of 10,000 characters": (lambda p: p.token(header={"kid": "k" * 10_000}), "malformed"),
    "key of another type": (
        lambda p: signed(p.header(alg="ES256", kid="first"), p.claims(), ec_key("ec")),
        "key_unknown",
    ),
    "RS256 under the id of an EC key": (lambda p: p.token(header={"kid": "ec"}), "key_unknown"),
    # What changes the rules of the check.
    "crit": (lambda p: p.token(header={"crit": ["exp"]}), "header"),
    "crit, empty": (lambda p: p.token(header={"crit": []}), "header"),
    "crit with an extension": (
        lambda p: p.token(header={"crit": ["urn:x"], "urn:x": True}),
        "header",
    ),
    "b64 false": (lambda p: p.token(header={"b64": False}), "header"),
    "zip": (lambda p: p.token(header={"zip": "DEF"}), "header"),
    "type of a logout": (lambda p: p.token(header={"typ": "logout+jwt"}), "type"),
    "type of a proof": (lambda p: p.token(header={"typ": "dpop+jwt"}), "type"),
    "type that is a number": (lambda p: p.token(header={"typ": 1}), "type"),
    # Not for us.
    "another audience": (lambda p: p.token(aud="another"), "audience"),
    "no audience": (lambda p: p.token(aud=None), "audience"),
    "audience a list of others": (lambda p: p.token(aud=["a", "b"]), "audience"),
    "audience an object": (lambda p: p.token(aud={"penstock": True}), "audience"),
    "audience with a prefix": (lambda p: p.token(aud="penstock-staging"), "audience"),
    "audience in a mixed list": (lambda p: p.token(aud=[1, "penstock"]), "audience"),
    "audience nested": (lambda p: p.token(aud=[["penstock"]]), "audience"),
    "another issuer": (lambda p: p.token(iss="https://evil.example"), "issuer"),
    "issuer with a slash more": (lambda p: p.token(iss=p.url + "/"), "issuer"),
    "issuer in upper case": (lambda p: p.token(iss=p.url.upper()), "issuer"),
    "no issuer": (lambda p: p.token(iss=None), "issuer"),
    "issuer a list": (lambda p: p.token(iss=[p.url]), "issuer"),
    # Not now.
    "expired": (lambda p: p.token(exp=1), "expired"),
    "exp negative": (lambda p: p.token(exp=-1), "expired"),
    "no exp": (lambda p: p.token(exp=None), "malformed"),
    "exp as text": (lambda p: p.token(exp="9999999999"), "malformed"),
    "exp true": (lambda p: p.token(exp=True), "malformed"),
    "exp a list": (lambda p: p.token(exp=[9999999999]), "malformed"),
    "exp huge": (lambda p: p.token(exp=10**30), "lifetime"),
    "exp of 400 digits": (lambda p: p.token(exp=10**400), "malformed"),
    "exp 1e400": (
        lambda p: with_payload(p, json.dumps(p.claims(exp=-7)).replace("-7", "1e400")),
        "malformed",
    ),
    "exp NaN": (
        lambda p: with_payload(p, json.dumps(p.claims(exp=float("nan")))),
        "malformed",
    ),
    "exp in a year": (lambda p: p.token(exp=p.claims()["iat"] + 31_000_000), "lifetime"),
    "not yet valid": (lambda p: p.token(nbf=p.claims()["iat"] + 3600), "not_yet_valid"),
    "issued in the future": (lambda p: p.token(iat=p.claims()["iat"] + 3600), "not_yet_valid"),
    "nbf as text": (lambda p: p.token(nbf="0"), "malformed"),
    # Forms that two readers could read in two ways.
    "duplicate team": (lambda p: with_double_claim(p, "team", "apps"), "malformed"),
    "duplicate aud": (lambda p: with_double_claim(p, "aud", "penstock"), "malformed"),
    "duplicate exp": (lambda p: with_double_claim(p, "exp", 9999999999), "malformed"),
    "duplicate alg": (
        lambda p: f"{b64(DOUBLE_ALG)}.{parts(p)[1]}.AAAA",
        "malformed",
    ),
    "padding": (lambda p: p.token() + "==", "malformed"),
    "base64 with + and /": (lambda p: ".".join([*parts(p)[:2], "+/+/"]), "malformed"),
    "a space inside": (lambda p: p.token().replace(".", ". ", 1), "malformed"),
    "a line break inside": (lambda p: p.token() + "\n", "malformed"),
    "a NUL inside": (lambda p: p.token()[:40] + "\0" + p.token()[40:], "malformed"),
    "a letter that is not ASCII": (lambda p: p.token() + "é", "malformed"),
    "base64 of an impossible length": (lambda p: f"{parts(p)[0]}.A.AAAA", "malformed"),
    "payload no JSON": (lambda p: with_payload(p, "{"), "malformed"),
    "payload a list": (lambda p: with_payload(p, "[]"), "malformed"),
    "payload null": (lambda p: with_payload(p, "null"), "malformed"),
    "payload not UTF-8": (lambda p: signed(p.header(), b'{"a":"\xff"}', p.key), "malformed"),
    "payload nested deeply": (
        lambda p: signed(p.header(), b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", p.key),
        "malformed",
    ),
    "header no object": (lambda p: f"{b64([])}.{parts(p)[1]}.AAAA", "malformed"),
    "five parts, as if encrypted": (lambda p: ".".join([*parts(p), "AAAA", "AAAA"]), "malformed"),
    "four parts": (lambda p: p.token() + ".AAAA", "malformed"),
    "only dots": (lambda p: "..", "malformed"),
    "huge": (lambda p: p.token(filler="x" * 20_000), "too_long"),
    # Nobody.
    "no subject": (lambda p: p.token(sub=None), "subject"),
    "subject empty": (lambda p: p.token(sub=""), "subject"),
    "subject a number": (lambda p: p.token(sub=7), "subject"),
    "subject with a line break": (lambda p: p.token(sub="alice\nteam=apps"), "subject"),
    "subject of 300 characters": (lambda p: p.token(sub="a" * 300), "subject"),
}


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_token_is_refused(
    provider: IdentityProvider, office: Office, case: str
) -> None:
    forge, reason = FORGED[case]
    token = forge(provider)

    with pytest.raises(TokenRefused) as refused:
        await office.principal(token)

    assert refused.value.reason == reason
    assert (await office.principal(provider.token())).team == "search"
    # Whatever a token names, only the issuer of the policy was ever asked for anything.
    assert {url.removeprefix(provider.url) for url in office.fetched} <= {
        "/.well-known/openid-configuration",
        "/keys",
    }


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_token_is_never_left_to_another_plugin(
    provider: IdentityProvider, case: str
) -> None:
    assert looks_like_token(FORGED[case][0](provider))


@pytest.mark.parametrize("credential", ["", "ollama", "sk-no-key", "sk-penstock-x", "a.b", "-"])
def test_what_is_no_token_is(credential: str) -> None:
    assert not looks_like_token(credential)


async def test_the_party_that_asked_for_it_may_be_one_that_is_listed(
    provider: IdentityProvider,
) -> None:
    async with open_office(corp=trusting(provider, authorized_parties=["web"])) as office:
        assert await office.principal(provider.token(azp="web"))
        assert await office.principal(provider.token(client_id="web"))
        for claims in ({"azp": "mobile"}, {}, {"azp": ["web"]}, {"azp": "x", "client_id": "web"}):
            with pytest.raises(TokenRefused, match="authorized_party"):
                await office.principal(provider.token(**claims))


async def test_two_tokens_with_one_beginning_are_two_callers(
    provider: IdentityProvider, office: Office
) -> None:
    # Header and most of the payload are the same bytes: well over any prefix of a token.
    alice = provider.token(sub="alice", iat=1, exp=int(office.clock()) + 99)
    mallory = provider.token(sub="alicf", iat=1, exp=int(office.clock()) + 99)
    assert alice[:64] == mallory[:64]

    assert (await office.principal(alice)).name == "corp:alice"
    assert (await office.principal(mallory)).name == "corp:alicf"


async def test_no_prefix_of_a_remembered_token_is_remembered(
    provider: IdentityProvider, office: Office
) -> None:
    token = provider.token()
    assert await office.principal(token)

    for other in (token[:-1], token + "A", token[:-4] + "AAAA", token.swapcase()):
        with pytest.raises(TokenRefused):
            await office.principal(other)


def test_a_forged_signature_is_what_the_tests_think_it_is(provider: IdentityProvider) -> None:
    content, _, signature = provider.token().rpartition(".")

    raw = base64.urlsafe_b64decode(signature + "==")
    assert provider.key.kid == "first"
    assert len(raw) == 256
    assert content.count(".") == 1
