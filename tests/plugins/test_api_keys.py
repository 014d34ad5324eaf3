from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway import Call, Principal, Unauthenticated
from gateway.errors import LedgerUnavailable, problem_of
from gateway.keys import Keys, NewKey, Pepper
from gateway.keys.text import new_claim, written
from gateway.policy import Policy
from plugins.api_keys import ApiKeys
from tests.fakes import FakeClock, FakeLedger

HEADERS = ["authorization", "x-api-key", "api-key"]


class Desk:
    """The plugin, with keys on a fake ledger behind it."""

    def __init__(self) -> None:
        self.ledger = FakeLedger()
        self.keys = Keys(
            self.ledger, pepper=Pepper([b"p" * 32]), clock=FakeClock(), monotonic=FakeClock()
        )
        self.plugin = ApiKeys(SimpleNamespace(keys=self.keys))

    async def identify(self, **headers: str) -> Principal | None:
        policy = Policy(
            directory=Path("p"),
            digest="",
            plugins=[],
            tables={},
            engines={},
            models={},
            teams={},
            limits={},
            aliases={},
        )
        call = Call(id="c", endpoint="openai.chat", policy=policy)
        lower = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.plugin.identify(call, lower)


@pytest.fixture
async def desk() -> AsyncGenerator[Desk, None]:
    desk = Desk()
    async with desk.keys:
        yield desk
        desk.ledger.is_down = False


@pytest.fixture
async def new(desk: Desk) -> NewKey:
    return await desk.keys.create("search", "laptop")


def sent(header: str, credential: str) -> dict[str, str]:
    return {header: f"Bearer {credential}" if header == "authorization" else credential}


@pytest.mark.parametrize("header", HEADERS)
async def test_every_header_names_the_keys_principal(desk: Desk, new: NewKey, header: str) -> None:
    principal = await desk.identify(**sent(header, new.secret))

    assert principal == Principal(name="laptop", team="search", key_id=new.key.id)
    assert principal.role == "member"


@pytest.mark.parametrize("header", HEADERS)
async def test_every_header_refuses_what_is_not_a_good_key(
    desk: Desk, new: NewKey, header: str
) -> None:
    await desk.keys.revoke(new.key.id)
    bad = [
        new.secret,
        written(new_claim()),
        new.secret[:-1],
        new.secret.upper(),
        "sk-penstock-",
        "sk-penstock-é",
        "SK-Penstock-x",
    ]

    refusals: list[tuple[int, str]] = []
    for credential in bad:
        with pytest.raises(Unauthenticated) as refused:
            await desk.identify(**sent(header, credential))
        problem = problem_of(refused.value)
        refusals.append((problem.status, problem.message))

    assert len(set(refusals)) == 1
    assert refusals[0][0] == 401


async def test_a_refusal_shows_nothing_of_the_key(desk: Desk, new: NewKey) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await desk.identify(x_api_key=new.secret[:-1])

    problem = problem_of(refused.value)
    assert problem.headers == {"www-authenticate": "Bearer"}
    assert not any(part in problem.message for part in new.secret.split("-")[2:])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer   "},
        {"x_api_key": " ", "api_key": ""},
    ],
)
async def test_no_credential_is_left_to_the_next_plugin(
    desk: Desk, headers: dict[str, str]
) -> None:
    assert await desk.identify(**headers) is None


@pytest.mark.parametrize("dummy", ["sk-no-key", "ollama", "eyJhbGciOi.x.y", "sk-ant-x", "-"])
@pytest.mark.parametrize("header", HEADERS)
async def test_anothers_credential_is_left_to_the_next_plugin(
    desk: Desk, header: str, dummy: str
) -> None:
    assert await desk.identify(**sent(header, dummy)) is None
    assert desk.ledger.reads == 0


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} ", "{}"])
async def test_the_scheme_may_be_written_as_clients_do(desk: Desk, new: NewKey, form: str) -> None:
    assert await desk.identify(authorization=form.format(new.secret)) is not None


async def test_the_same_key_twice_is_one_key(desk: Desk, new: NewKey) -> None:
    principal = await desk.identify(authorization=f"Bearer {new.secret}", x_api_key=new.secret)

    assert principal is not None


@pytest.mark.parametrize("other", ["ollama", "sk-penstock-x", "Basic eDp5"])
async def test_two_different_credentials_are_refused(desk: Desk, new: NewKey, other: str) -> None:
    second = await desk.keys.create("me", "other")

    for pair in (
        {"authorization": other, "x_api_key": new.secret},
        {"authorization": f"Bearer {new.secret}", "api_key": other},
        {"x_api_key": new.secret, "api_key": second.secret},
    ):
        with pytest.raises(Unauthenticated, match="two different"):
            await desk.identify(**pair)


async def test_a_ledger_that_is_down_is_a_503_and_never_a_401(desk: Desk, new: NewKey) -> None:
    desk.ledger.is_down = True

    with pytest.raises(LedgerUnavailable) as refused:
        await desk.identify(x_api_key=new.secret)

    assert problem_of(refused.value).status == 503
