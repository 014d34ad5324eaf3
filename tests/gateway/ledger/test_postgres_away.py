"""PostgreSQL stopped, killed and frozen under load: calls go on, and no record is lost."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from gateway.errors import LedgerUnavailable
from gateway.keys import Keys, open_pepper
from gateway.ledger import UsageQuery, open_ledger
from gateway.ledger.spool import Spool
from gateway.ledger.writer import UsageWriter
from gateway.settings import Settings
from tests.fakes import ScriptedEngine
from tests.gateway.ledger.records import an_entry, records
from tests.postgres_server import PostgresServer, postgres_server
from tests.serving import (
    SCRIPTED_POLICY,
    Server,
    scripted_gateway,
    serving,
    settings_in,
    write_policy,
)

BODY = {"model": "chat-small", "messages": [{"role": "user", "content": "hi"}]}
PLUGINS = SCRIPTED_POLICY["gateway.toml"].replace('["anonymous",', '["usage", "anonymous",')


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def settings(cluster: PostgresServer, tmp_path: Path) -> Settings:
    return settings_in(tmp_path, ledger=cluster.emptied_database())


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[Server]:
    directory = write_policy(tmp_path / "policy", {"gateway.toml": PLUGINS})
    engines = {"scripted": ScriptedEngine()}
    with serving(scripted_gateway(directory, engines, settings=settings)) as server:
        yield server


class Load:
    """Callers that ask again and again, in threads, until the block ends."""

    def __init__(self, url: str) -> None:
        self.ids: set[str] = set()
        self.failures: list[str] = []
        self._client = httpx.Client(base_url=url, timeout=30)
        self._is_over = threading.Event()
        self._counted = threading.Condition()
        self._callers = [threading.Thread(target=self._call) for _ in range(4)]

    def __enter__(self) -> "Load":
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for caller in self._callers:
            caller.join(30)
        self._client.close()

    def until(self, more: int) -> None:
        """Return when so many more calls were answered."""
        with self._counted:
            goal = len(self.ids) + more
            assert self._counted.wait_for(lambda: self.failures or len(self.ids) >= goal, 40)

    def _call(self) -> None:
        while not self._is_over.is_set() and not self.failures:
            try:
                answer = self._client.post("/v1/chat/completions", json=BODY)
                failure = "" if answer.status_code == 200 else answer.text
            except httpx.HTTPError as error:
                failure = repr(error)
            with self._counted:
                if failure:
                    self.failures.append(failure)
                else:
                    self.ids.add(answer.headers["x-request-id"])
                self._counted.notify_all()


def recorded_ids(settings: Settings) -> list[str]:
    async def read() -> list[str]:
        async with open_ledger(settings.ledger_url) as ledger:
            found = await ledger.usage.calls(UsageQuery(limit=1_000_000))
            return [record.call_id for record in found]

    return asyncio.run(read())


@pytest.mark.parametrize("how", ["frozen", "killed", "stopped"])
def test_calls_go_on_and_every_record_is_there_once_in_the_end(
    cluster: PostgresServer, server: Server, settings: Settings, how: str
) -> None:
    away = {"frozen": cluster.pause, "killed": cluster.kill, "stopped": cluster.stop}
    back = {"frozen": cluster.resume, "killed": cluster.start, "stopped": cluster.start}
    usage = server.gateway.usage
    with Load(server.url) as load:
        load.until(30)
        away[how]()
        try:
            load.until(200)
            server.wait_until(lambda: usage.report().spooled > 0)
            load.until(30)
        finally:
            back[how]()
        load.until(30)

    assert load.failures == []
    server.wait_until(lambda: not usage.report().is_behind and not usage.report().queued)
    found = recorded_ids(settings)
    assert len(found) == len(set(found))
    assert set(found) == load.ids
    assert usage.report().dropped == 0


def test_what_no_database_took_before_the_end_is_written_after_the_next_start(
    cluster: PostgresServer, settings: Settings, tmp_path: Path
) -> None:
    directory = write_policy(tmp_path / "policy", {"gateway.toml": PLUGINS})
    with serving(
        scripted_gateway(directory, {"scripted": ScriptedEngine()}, settings=settings)
    ) as first:
        cluster.kill()
        with Load(first.url) as load:
            load.until(20)
    cluster.start()

    with serving(
        scripted_gateway(directory, {"scripted": ScriptedEngine()}, settings=settings)
    ) as second:
        second.wait_until(lambda: not second.gateway.usage.report().is_behind)

    assert load.failures == []
    assert sorted(recorded_ids(settings)) == sorted(load.ids)


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_a_key_that_cannot_be_looked_up_is_a_503_and_never_a_401(
    cluster: PostgresServer, server: Server, settings: Settings, how: str
) -> None:
    async def made() -> str:
        async with (
            open_ledger(settings.ledger_url) as ledger,
            Keys(ledger, pepper=open_pepper(settings)) as keys,
        ):
            return (await keys.create("me", "laptop")).secret

    # A forwarded call is not from this machine, so the key alone counts.
    headers = {"x-api-key": asyncio.run(made()), "x-forwarded-for": "192.0.2.1"}
    (cluster.pause if how == "frozen" else cluster.kill)()
    try:
        with ThreadPoolExecutor(8) as pool:
            asked = [
                pool.submit(httpx.get, f"{server.url}/v1/models", headers=headers, timeout=30)
                for _ in range(8)
            ]
            away = [answer.result() for answer in asked]
    finally:
        (cluster.resume if how == "frozen" else cluster.start)()

    assert {answer.status_code for answer in away} == {503}
    assert {answer.headers["retry-after"] for answer in away} == {"1"}
    until_answered(server, headers)


def until_answered(server: Server, headers: dict[str, str]) -> None:
    """Return when the key is good again; meanwhile it is never said to be a wrong one."""
    for _ in range(200):
        answer = httpx.get(f"{server.url}/v1/models", headers=headers, timeout=30)
        assert answer.status_code in (200, 503), answer.text
        if answer.status_code == 200:
            return
        threading.Event().wait(0.1)
    pytest.fail("the key was not known again")


def test_the_gateway_ends_in_good_order_while_the_database_is_frozen(
    cluster: PostgresServer, settings: Settings, tmp_path: Path
) -> None:
    directory = write_policy(tmp_path / "policy", {"gateway.toml": PLUGINS})
    engines = {"scripted": ScriptedEngine()}
    try:
        with serving(scripted_gateway(directory, engines, settings=settings)) as server:
            httpx.post(f"{server.url}/v1/chat/completions", json=BODY, timeout=30)
            cluster.pause()
            with Load(server.url) as load:
                load.until(10)
    finally:
        cluster.resume()

    with serving(scripted_gateway(directory, engines, settings=settings)) as again:
        again.wait_until(lambda: not again.gateway.usage.report().is_behind)
    assert len(recorded_ids(settings)) == len(load.ids) + 1


async def test_twenty_thousand_records_survive_a_dead_database(
    cluster: PostgresServer, settings: Settings, tmp_path: Path
) -> None:
    spool = Spool(tmp_path / "spool", max_bytes=64 * 1024 * 1024)
    async with open_ledger(settings.ledger_url) as ledger:
        cluster.kill()
        async with UsageWriter(ledger.usage, spool) as writer:
            for record in records(20_000):
                writer.put(record)
            async with asyncio.timeout(40):
                while writer.report().spooled < 20_000:  # noqa: ASYNC110 - a thread writes it
                    await asyncio.sleep(0.01)
            await asyncio.to_thread(cluster.start)
            async with asyncio.timeout(40):
                while writer.report().is_behind:  # noqa: ASYNC110 - a thread writes it
                    await asyncio.sleep(0.01)
        [total] = await ledger.usage.totals(UsageQuery())

    assert (total.calls, total.prompt_tokens) == (20_000, 200_000)
    assert list((tmp_path / "spool").iterdir()) == []
    assert writer.report().dropped == 0


async def test_a_frozen_database_is_left_alone_until_it_answers_again(
    cluster: PostgresServer, settings: Settings
) -> None:
    async with open_ledger(settings.ledger_url) as ledger:
        await ledger.audit.append(an_entry())
        cluster.pause()
        try:
            with pytest.raises(LedgerUnavailable) as slow:
                await ledger.audit.append(an_entry())
            with pytest.raises(LedgerUnavailable) as at_once:
                await ledger.keys()
        finally:
            cluster.resume()
        assert slow.value.__cause__ is not None
        assert at_once.value.__cause__ is None  # it was not even asked
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await ledger.keys() == []
                    break
                except LedgerUnavailable:
                    await asyncio.sleep(0.05)
        assert (await ledger.audit.verify()).bad_seq is None
