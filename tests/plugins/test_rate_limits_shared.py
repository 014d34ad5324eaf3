"""Limits of every scope over real sockets: many clients, several gateways, one store."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gateway.store import Bucket
from tests.plugins.shared_limits import (
    ALL,
    GATEWAY,
    Answer,
    Cluster,
    cluster,
    kill,
    new_client,
)
from tests.redis_server import RedisServer, redis_server

LIMITS = """
    [standard]
    requests_per_minute = 120
    tokens_per_minute   = 480
    concurrent_calls    = 6

    [each-key]
    per = ["key"]
    requests_per_minute = 40

    [big]
    per    = ["model"]
    models = ["chat-big"]
    requests_per_minute = 30

    [team-on-small]
    per    = ["team", "model"]
    models = ["chat-small"]
    input_tokens_per_minute = 160

    [chat]
    per       = ["endpoint"]
    endpoints = ["openai.chat"]
    output_tokens_per_minute = 330

    [everything]
    per = []
    requests_per_minute = 130
    concurrent_calls    = 9
"""
NUM_CLIENTS = 200
STORES = ["memory", "redis"]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def leases(name: str, subject: str = "") -> Bucket:
    return Bucket(kind="leases", key=f"{name}:concurrent_calls{subject}", limit=1)


@pytest.mark.parametrize("store", STORES)
def test_no_limit_of_any_scope_is_passed_by_two_hundred_clients(
    store: str, server: RedisServer, tmp_path: Path
) -> None:
    # One process has one memory store; two gateways need the shared one.
    url, num_gateways = ("memory:", 1) if store == "memory" else (server.url, 2)
    # A store that is slow on a busy machine must not be a reason to count elsewhere.
    url += "?timeout_seconds=10" if store == "redis" else ""
    server.ask("FLUSHALL")
    with cluster(
        tmp_path, limits=LIMITS, store_url=url, pause_seconds=0.02, num_gateways=num_gateways
    ) as clients:
        answers = asyncio.run(press(clients, NUM_CLIENTS * 2))
        # How many of a crowd find one of nine places depends on the machine; that the
        # places come back does not.
        while num_good(answers) < 30 and len(answers) < 20 * NUM_CLIENTS:
            answers += asyncio.run(press(clients, NUM_CLIENTS))

        assert {answer.status for answer in answers} == {200, 429}
        good = [answer for answer in answers if answer.status == 200]
        assert_never_more(good, 120, lambda answer: answer.team)
        assert_never_more(good, 40, lambda answer: answer.key)
        assert_never_more([a for a in good if a.model == "chat-big"], 30, lambda _: "big")
        assert_never_more(good, 130, lambda _: "everything")
        assert_never_more(good, 480, lambda a: a.team, units=lambda a: a.usage)
        assert_never_more(
            [a for a in good if a.model == "chat-small"], 160, lambda a: a.team,
            units=lambda a: a.usage - 3,
        )  # fmt: skip
        assert_never_more(good, 330, lambda _: "chat", units=lambda _: 3)
        assert clients.peak.highest[ALL] <= 9
        assert max(clients.peak.highest[team] for team in ("search", "batch")) <= 6
        assert num_good(answers) >= 30, "some limit refused far too much"
        assert clients.peak.running.total() == 0


def num_good(answers: Sequence[Answer]) -> int:
    return sum(answer.status == 200 for answer in answers)


async def press(clients: Cluster, count: int) -> list[Answer]:
    """So many calls by two hundred clients at once."""
    teams, models = ("search", "batch"), ("chat-small", "chat-small", "chat-big")
    turn = asyncio.Semaphore(NUM_CLIENTS)
    async with new_client() as client:

        async def one(number: int) -> Answer:
            async with turn:
                return await clients.ask(
                    client, number // 2, team=teams[number % 2], model=models[number % 3]
                )

        return list(await asyncio.gather(*(one(number) for number in range(count))))


def assert_never_more(
    answers: Sequence[Answer],
    per_minute: int,
    whose: Callable[[Answer], str],
    *,
    units: Callable[[Answer], int] = lambda _: 1,
) -> None:
    """What was let in is at most a minute's allowance at once, and what flowed out since."""
    began = min(answer.at for answer in answers)
    ended = max(answer.at + answer.seconds for answer in answers)
    most = per_minute + per_minute * (ended - began) / 60
    for subject in {whose(answer) for answer in answers}:
        total = sum(units(answer) for answer in answers if whose(answer) == subject)
        assert total <= most, f"{subject}: {total} of {most}"


@pytest.mark.parametrize("store", STORES)
def test_nothing_is_held_when_all_clients_were_killed(
    store: str, server: RedisServer, tmp_path: Path
) -> None:
    limits = "[standard]\nconcurrent_calls = 50\ntokens_per_minute = 100_000\n"
    url, num_gateways = ("memory:", 1) if store == "memory" else (server.url, 2)
    url += "?timeout_seconds=10" if store == "redis" else ""
    server.ask("FLUSHALL")
    with cluster(
        tmp_path, limits=limits, store_url=url, pause_seconds=0.3, num_gateways=num_gateways
    ) as clients:
        sockets = [clients.open_stream(number) for number in range(40)]
        for server_of in clients.servers:
            server_of.wait_until(lambda: clients.peak.highest["search"] >= 20)
        for number, client in enumerate(sockets):
            if number % 2:
                client.recv(1)  # half of them in mid-stream, half before the first byte
            kill(client)
        for server_of in clients.servers:
            server_of.wait_until(lambda server_of=server_of: not server_of.gateway.calls)

        held = leases("standard", ":team=search")
        assert until(lambda: asyncio.run(clients.fills(held))[0].used == 0)
        assert clients.peak.running.total() == 0
        assert asyncio.run(ask_some(clients, 4)) == [200] * 4


@pytest.mark.parametrize(
    ("choice", "statuses"), [("local", {200, 429}), ("open", {200}), ("closed", {503})]
)
@pytest.mark.parametrize("how", ["pause", "kill"])
def test_a_store_that_fails_under_load_is_gone_round_as_the_policy_says_and_comes_back(
    how: str, choice: str, statuses: set[int], tmp_path: Path
) -> None:
    limits = "[standard]\nrequests_per_minute = 60\n[all]\nper = []\nconcurrent_calls = 100\n"
    gateway = GATEWAY + f'on_store_failure = "{choice}"\n'
    with (
        redis_server() as server,
        cluster(tmp_path, limits=limits, store_url=server.url, gateway=gateway) as clients,
    ):
        until(lambda: answers(clients, 1)[0].status == 200)

        server.pause() if how == "pause" else server.kill()
        degraded = answers(clients, 160)

        without_store = [a for a in degraded if a.headers.get("x-penstock-limits") == "degraded"]
        assert len(without_store) == len(degraded)
        assert {answer.status for answer in without_store} == statuses
        if choice == "local":
            assert_never_more(
                [a for a in without_store if a.status == 200], 60, lambda answer: answer.team
            )
        # A call that had to wait for more than the time-out would still be waiting.
        assert max(answer.seconds for answer in degraded) < 20

        server.resume() if how == "pause" else server.start()
        assert until(
            lambda: not any(a.headers.get("x-penstock-limits") for a in answers(clients, 2))
        )
        assert until(lambda: asyncio.run(clients.fills(leases("all")))[0].used == 0)


def answers(clients: Cluster, count: int) -> list[Answer]:
    async def asked() -> list[Answer]:
        async with new_client(40) as client:
            return list(
                await asyncio.gather(*(clients.ask(client, number) for number in range(count)))
            )

    return asyncio.run(asked())


async def ask_some(clients: Cluster, count: int) -> list[int]:
    async with new_client() as client:
        return [(await clients.ask(client, number)).status for number in range(count)]


def until(holds: Callable[[], bool]) -> bool:
    """Ask again and again until it holds, for a while."""
    deadline = time.monotonic() + 30
    while not holds():
        if time.monotonic() > deadline:
            return False
    return True
