"""Two gateways in processes of their own, on one ledger."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.keys import Keys, open_pepper
from gateway.ledger import open_ledger
from gateway.settings import Settings
from tests.gateway.cli.test_serve import served
from tests.serving import write_policy

SECOND = 1.0  # what docs/keys.md promises

PLUGINS = {
    "gateway.toml": 'plugins = ["api_keys", "allow_lists", "routing", "gguf_engine"]',
    "engines.toml": '[laptop]\nkind = "gguf"',
    "models.toml": '[starter]\n[[starter.targets]]\nengine = "laptop"',
}


@contextmanager
def two_gateways(directory: Path) -> Iterator[list[str]]:
    policy = str(write_policy(directory / "policy", PLUGINS))
    data = directory / "data"
    with (
        served(data, PENSTOCK_POLICY=policy) as (one, first),
        served(data, PENSTOCK_POLICY=policy) as (two, second),
    ):
        yield [first, second]
        one.terminate()
        two.terminate()


def statuses(urls: list[str], key: str) -> set[int]:
    headers = {"authorization": f"Bearer {key}"}
    return {httpx.get(f"{url}/v1/models", headers=headers, timeout=30).status_code for url in urls}


@pytest.mark.parametrize("end", ["revoke", "disable"])
def test_a_key_that_is_ended_is_refused_by_both_within_a_second(tmp_path: Path, end: str) -> None:
    settings = Settings(data_dir=tmp_path / "data")

    async def with_keys(action: str, argument: str) -> str:
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            if action == "create":
                return (await keys.create("me", argument)).secret
            await getattr(keys, action)(argument)
            return ""

    with two_gateways(tmp_path) as urls:
        key = asyncio.run(with_keys("create", "laptop"))
        assert statuses(urls, key) == {200}

        asyncio.run(with_keys(end, key.split("-")[2]))
        # The promise itself: a call that comes a second after the change is refused,
        # however busy this machine is.
        time.sleep(SECOND)

        assert statuses(urls, key) == {401}
        assert statuses(urls, asyncio.run(with_keys("create", "another"))) == {200}
