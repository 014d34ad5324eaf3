"""Good tokens of a real issuer, its rotations and its absences."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from joserfc.jwk import OKPKey

from gateway.errors import IssuerUnavailable
from gateway.oidc import TokenRefused
from tests.gateway.oidc.office import Office, open_office, trusting
from tests.identity_provider import IdentityProvider, ec_key, identity_provider, public, rsa_key


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as provider:
        yield provider


@pytest.fixture
async def office(provider: IdentityProvider) -> AsyncGenerator[Office, None]:
    algorithms = ["RS256", "PS256", "ES256", "Ed25519"]
    async with open_office(corp=trusting(provider, algorithms=algorithms)) as office:
        yield office


async def refused(office: Office, token: str) -> str:
    with pytest.raises(TokenRefused) as error:
        await office.principal(token)
    return error.value.reason


async def test_a_good_token_is_its_subject_and_its_team(
    provider: IdentityProvider, office: Office
) -> None:
    principal = await office.principal(provider.token())

    assert (principal.name, principal.team, principal.role) == ("corp:alice", "search", "member")
    assert principal.key_id is None


@pytest.mark.parametrize("audience", ["penstock", ["other", "penstock"]])
async def test_an_audience_may_be_one_of_a_list(
    provider: IdentityProvider, office: Office, audience: Any
) -> None:
    assert await office.principal(provider.token(aud=audience))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", None])
async def test_access_tokens_and_tokens_without_a_type_are_accepted(
    provider: IdentityProvider, office: Office, kind: str | None
) -> None:
    assert await office.principal(provider.token(header={"typ": kind}))


async def test_every_listed_algorithm_is_verified(
    provider: IdentityProvider, office: Office
) -> None:
    assert await office.principal(provider.token(header={"alg": "PS256"}))
    okp = OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"}, private=True)
    for algorithm, key in (("ES256", ec_key("ec")), ("Ed25519", okp)):
        provider.rotate(key)
        office.advance(11)
        assert await office.principal(provider.token(header={"alg": algorithm}))


async def test_clocks_may_differ_a_little(provider: IdentityProvider, office: Office) -> None:
    now = int(office.clock())

    assert await office.principal(provider.token(exp=now - 20))
    assert await office.principal(provider.token(nbf=now + 20, iat=now + 20))


async def test_a_token_ends_also_when_it_is_remembered(
    provider: IdentityProvider, office: Office
) -> None:
    token = provider.token(exp=int(office.clock()) + 5)
    assert await office.principal(token)

    office.advance(34)
    assert await office.principal(token)
    office.advance(2)

    assert await refused(office, token) == "expired"


async def test_a_remembered_token_is_not_verified_again(
    provider: IdentityProvider, office: Office
) -> None:
    token = provider.token()
    first = await office.principal(token)
    known = len(office.tokens._verified)

    assert await office.principal(token) is first
    assert len(office.tokens._verified) == known == 1
    office.advance(61)
    assert await office.principal(token) is not first


async def test_a_new_policy_judges_remembered_tokens_anew(
    provider: IdentityProvider, office: Office
) -> None:
    token = provider.token()
    assert await office.principal(token)

    office.issuers = {"corp": trusting(provider, audiences=["another"])}
    office.policy = type(office.policy)(
        **{name: getattr(office.policy, name) for name in office.policy.__struct_fields__}
    )

    assert await refused(office, token) == "audience"


async def test_keys_are_fetched_once_for_many_tokens(
    provider: IdentityProvider, office: Office
) -> None:
    tokens = [provider.token(sub=f"user-{number}") for number in range(20)]

    principals = await asyncio.gather(*(office.principal(token) for token in tokens))

    assert len({principal.name for principal in principals}) == 20
    assert provider.requests == ["/.well-known/openid-configuration", "/keys"]


async def test_a_rotation_is_noticed_by_the_first_token_of_the_new_key(
    provider: IdentityProvider, office: Office
) -> None:
    old = provider.token()
    assert await office.principal(old)

    provider.rotate(rsa_key("second"))

    assert await office.principal(provider.token())
    assert provider.jwks_requests == 2


async def test_a_token_of_a_withdrawn_key_is_refused_also_when_it_is_remembered(
    provider: IdentityProvider, office: Office
) -> None:
    old = provider.token()
    assert await office.principal(old)
    provider.rotate(rsa_key("second"))
    assert await office.principal(provider.token())

    assert await refused(office, old) == "key_unknown"


async def test_while_both_keys_are_published_both_are_good(
    provider: IdentityProvider, office: Office
) -> None:
    old = provider.token()
    provider.rotate(rsa_key("second"), keeps_old=True)

    assert await office.principal(old)
    assert await office.principal(provider.token())


async def test_unknown_keys_cause_one_fetch_in_ten_seconds(
    provider: IdentityProvider, office: Office
) -> None:
    assert await office.principal(provider.token())

    for number in range(50):
        token = provider.token(header={"kid": f"made-up-{number}"})
        assert await refused(office, token) == "key_unknown"
    assert provider.jwks_requests == 2

    office.advance(10)
    assert await refused(office, provider.token(header={"kid": "again"})) == "key_unknown"
    assert provider.jwks_requests == 3


async def test_a_token_that_could_not_be_good_causes_no_fetch(
    provider: IdentityProvider, office: Office
) -> None:
    hostile = [
        provider.token(header={"kid": "made-up"}, exp=1),
        provider.token(header={"kid": "made-up"}, aud="another"),
        provider.token(header={"kid": "made-up"}, iss="https://evil.example"),
        provider.token(header={"kid": "made-up", "alg": "HS256"}),
    ]

    for token in hostile:
        await refused(office, token)

    assert provider.requests == []


async def test_without_a_key_id_the_only_key_that_fits_is_taken(
    provider: IdentityProvider, office: Office
) -> None:
    assert await office.principal(provider.token(header={"kid": None}))

    provider.rotate(rsa_key("second"), keeps_old=True)
    assert await office.principal(provider.token())

    assert await refused(office, provider.token(header={"kid": None})) == "key_unknown"


async def test_the_last_good_keys_stay_while_the_issuer_is_away(
    provider: IdentityProvider, office: Office
) -> None:
    assert await office.principal(provider.token())
    provider.fails()

    office.advance(3600)
    issuer = office.tokens._issuer("corp", office.issuers["corp"])
    await issuer.refresh()

    now = int(office.clock())
    assert await office.principal(provider.token(iat=now, exp=now + 60))
    assert await refused(office, provider.token(header={"kid": "x"}, exp=now + 60)) == "key_unknown"


async def test_after_a_day_without_the_issuer_its_keys_count_no_more(
    provider: IdentityProvider, office: Office
) -> None:
    assert await office.principal(provider.token())
    provider.fails()
    office.advance(24 * 3600 + 1)
    now = int(office.clock())

    with pytest.raises(IssuerUnavailable):
        await office.principal(provider.token(iat=now, exp=now + 60))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b'{"keys": []}',
        b'{"keys": {}}',
        b'{"keys": [null, 1, "x", {}]}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "first"}]}',
        b'{"keys": 1, "keys": []}',
        b'{"keys": [' + b"[" * 5000 + b"]" * 5000 + b"]}",
        b'{"keys": ["' + b"x" * 600_000 + b'"]}',
    ],
    ids=range(11),
)
async def test_an_answer_that_is_no_key_set_takes_no_key_away(
    provider: IdentityProvider, office: Office, body: bytes
) -> None:
    assert await office.principal(provider.token())
    provider.answers["/keys"] = lambda: (200, {}, body)

    await office.tokens._issuer("corp", office.issuers["corp"]).refresh()

    assert await office.principal(provider.token(sub="bob"))


async def test_without_keys_a_token_is_not_judged_at_all(
    provider: IdentityProvider, office: Office
) -> None:
    provider.fails(503)

    for _ in range(10):
        with pytest.raises(IssuerUnavailable):
            await office.principal(provider.token())
    assert len(provider.requests) == 1

    provider.answers.clear()
    office.advance(15)
    assert await office.principal(provider.token())


async def test_keys_that_cannot_verify_are_left_out(
    provider: IdentityProvider, office: Office
) -> None:
    good = provider.published[0]
    provider.published = [
        {**good, "kid": "enc", "use": "enc"},
        {**good, "kid": "ops", "key_ops": ["encrypt"]},
        {**good, "kid": "other-alg", "alg": "RS512"},
        {**provider.key.as_dict(private=True), "kid": "private"},
        {**good, "kid": "small", "n": "AQAB"},
        {**good, "kid": "huge", "n": "_" * 4000},
        {**good, "kid": "even", "e": "AQAA"},
        {**good, "kid": "one", "e": "AQ"},
        {**good, "kid": 7},
        good,
    ]

    assert await office.principal(provider.token())
    for kid in ("enc", "ops", "other-alg", "private", "small", "huge", "even", "one"):
        office.advance(11)
        assert await refused(office, provider.token(header={"kid": kid})) == "key_unknown"


async def test_two_issuers_are_two_worlds(provider: IdentityProvider) -> None:
    with identity_provider() as other:
        other.rotate(rsa_key("theirs"))
        async with open_office(corp=trusting(provider), partner=trusting(other)) as office:
            mine = await office.principal(provider.token())
            theirs = await office.principal(other.token())
            assert (mine.name, theirs.name) == ("corp:alice", "partner:alice")

            # The other's key, also under my key's id, signs nothing of mine.
            provider_claims = other.token(iss=provider.url)
            assert await refused(office, provider_claims) == "key_unknown"
            other.key = rsa_key("theirs")
            forged = other.token(header={"kid": provider.key.kid}, iss=provider.url)
            assert await refused(office, forged) == "signature"


async def test_the_policy_may_say_where_the_keys_are(provider: IdentityProvider) -> None:
    policy = trusting(provider, jwks_url=f"{provider.url}/keys")
    async with open_office(corp=policy) as office:
        assert await office.principal(provider.token())

    assert provider.requests == ["/keys"]


async def test_a_published_key_may_be_of_any_name(
    provider: IdentityProvider, office: Office
) -> None:
    for number, kid in enumerate(["../../etc/passwd", "' OR 1=1 --", "", "é", "x" * 256]):
        key = rsa_key("second")
        provider.key = key
        provider.published = [public(key, kid=kid)]
        office.advance(11)
        assert await office.principal(provider.token(header={"kid": kid}, sub=f"u{number}"))
