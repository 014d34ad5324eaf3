"""When an issuer's keys are fetched, over hours that pass in no time."""

import asyncio
from typing import Any

import pytest

from gateway.errors import IssuerUnavailable
from gateway.oidc import IssuerPolicy
from gateway.oidc.fetching import FetchFailed
from gateway.oidc.issuer import Issuer
from tests.identity_provider import public, rsa_key
from tests.virtual_time import run_in_virtual_time

POLICY = IssuerPolicy(
    issuer="https://login.example.com/",
    audiences=["penstock"],
    jwks_url="https://login.example.com/keys",
    refresh_seconds=300,
)


class Source:
    """Answers with one key, or fails; notes when it was asked."""

    def __init__(self) -> None:
        self.is_down = False
        self.takes_seconds = 0.0
        self.asked_at: list[float] = []
        self.key = "first"

    async def __call__(self, url: str) -> dict[str, Any]:
        self.asked_at.append(asyncio.get_running_loop().time() - 1000)
        await asyncio.sleep(self.takes_seconds)
        if self.is_down:
            raise FetchFailed("down")
        return {"keys": [public(rsa_key(self.key))]}


def an_issuer(source: Source) -> Issuer:
    return Issuer("corp", POLICY, source, monotonic=asyncio.get_running_loop().time)


def test_keys_are_fetched_at_start_and_every_so_often() -> None:
    async def main() -> list[float]:
        source = Source()
        issuer = an_issuer(source)
        issuer.start()
        await asyncio.sleep(1000)
        await issuer.close()
        await asyncio.sleep(1000)
        return source.asked_at

    assert run_in_virtual_time(main) == [0, 300, 600, 900]


def test_an_issuer_that_is_away_is_asked_more_often_until_it_is_back() -> None:
    async def main() -> list[float]:
        source = Source()
        source.is_down = True
        issuer = an_issuer(source)
        issuer.start()
        await asyncio.sleep(50)
        source.is_down = False
        await asyncio.sleep(400)
        await issuer.close()
        return source.asked_at

    assert run_in_virtual_time(main) == [0, 15, 30, 45, 60, 360]


def test_a_rotation_is_found_without_any_token_of_it() -> None:
    async def main() -> tuple[int, int, int]:
        source = Source()
        issuer = an_issuer(source)
        issuer.start()
        await asyncio.sleep(1)
        before = issuer.generation
        await asyncio.sleep(300)
        same = issuer.generation
        source.key = "second"
        await asyncio.sleep(300)
        assert await issuer.keys_for("second", "RS256")
        await issuer.close()
        return before, same, issuer.generation

    assert run_in_virtual_time(main) == (1, 1, 2)


def test_callers_at_once_wait_for_one_fetch() -> None:
    async def main() -> int:
        source = Source()
        source.takes_seconds = 3.0
        issuer = an_issuer(source)
        found = await asyncio.gather(*(issuer.keys_for("first", "RS256") for _ in range(50)))
        assert all(found)
        return len(source.asked_at)

    assert run_in_virtual_time(main) == 1


def test_a_caller_who_leaves_does_not_end_the_fetch_of_the_others() -> None:
    async def main() -> None:
        source = Source()
        source.takes_seconds = 3.0
        issuer = an_issuer(source)
        leaving = asyncio.create_task(issuer.keys_for("first", "RS256"))
        staying = asyncio.create_task(issuer.keys_for("first", "RS256"))
        await asyncio.sleep(1)
        leaving.cancel()
        assert await staying

    run_in_virtual_time(main)


def test_an_issuer_without_keys_is_not_asked_by_every_caller() -> None:
    async def main() -> list[float]:
        source = Source()
        source.is_down = True
        issuer = an_issuer(source)
        for _ in range(40):
            with pytest.raises(IssuerUnavailable):
                await issuer.keys_for("first", "RS256")
            await asyncio.sleep(1)
        return source.asked_at

    assert run_in_virtual_time(main) == [0, 15, 30]
