from pathlib import Path

import httpx
import pytest

from gateway import Call, Principal
from gateway.call import ClientAddress
from gateway.policy import Policy
from plugins.anonymous import Anonymous
from tests.fakes import ScriptedEngine
from tests.serving import scripted_gateway, serving, write_policy

LOCAL = {"host": "localhost:8080"}


def a_call(client: str | None = "127.0.0.1", hosts: tuple[str, ...] = ()) -> Call:
    policy = Policy(
        directory=Path("p"),
        digest="",
        plugins=["anonymous"],
        tables={"anonymous": Anonymous.Table(team="me", hosts=hosts)},
        engines={},
        models={},
        teams={},
        limits={},
        aliases={},
    )
    return Call(id="c", endpoint="openai.chat", policy=policy, client=ClientAddress(client, 5000))


async def accepts(headers: dict[str, str], call: Call | None = None) -> bool:
    return await Anonymous().identify(call or a_call(), headers) is not None


async def test_a_caller_on_this_machine_is_the_tables_team() -> None:
    principal = await Anonymous().identify(a_call(), LOCAL)

    assert principal == Principal(name="anonymous", team="me")


@pytest.mark.parametrize("client", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", None])
async def test_loopback_and_a_unix_socket_are_this_machine(client: str | None) -> None:
    assert await accepts(LOCAL, a_call(client))


@pytest.mark.parametrize(
    "client",
    [
        "10.0.0.7",
        "192.168.1.2",
        "8.8.8.8",
        "0.0.0.0",
        "::",
        "fe80::1%eth0",
        "::ffff:10.0.0.7",
        "172.17.0.1",
        "localhost",
        "testclient",
        "",
    ],
)
async def test_every_other_address_is_not(client: str) -> None:
    assert not await accepts(LOCAL, a_call(client))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8080",
        "localhost.:8080",
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.9.9.9",
        "[::1]",
        "[::1]:8080",
    ],
)
async def test_it_may_be_called_by_its_own_names(host: str) -> None:
    assert await accepts({"host": host})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
        "127.0.0.1@evil.example",
        "evil.example@localhost",
        "localhost/evil",
        "localhost?evil",
        "localhost#x",
        "0.0.0.0:8080",
        "[::]",
        "10.0.0.7",
        "2130706433",
        "0x7f.1",
        "[::1",
        "::1",
        "localhost:http",
        "localhost:99999999",
        "localhost, evil.example",
        "local host",
        "\\localhost",
        "//localhost",
        "evil.example\\@localhost",
        "localhost\x00",
        "xn--localhost",
    ],
)
async def test_a_name_that_only_leads_here_is_refused(host: str) -> None:
    assert not await accepts({"host": host})


async def test_a_call_without_a_host_is_refused() -> None:
    assert not await accepts({})


async def test_the_table_may_allow_another_name() -> None:
    call = a_call(hosts=("Penstock.test",))

    assert await accepts({"host": "penstock.test:8080"}, call)
    assert await accepts({"host": "PENSTOCK.test"}, call)
    assert not await accepts({"host": "www.penstock.test"}, call)
    assert not await accepts({"host": "penstock.test"})


@pytest.mark.parametrize(
    "header",
    [
        "forwarded",
        "x-forwarded-for",
        "x-real-ip",
        "x-forwarded-host",
        "x-forwarded-proto",
        "via",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", "for=127.0.0.1", ""])
async def test_what_a_proxy_passed_on_is_refused(header: str, value: str) -> None:
    assert not await accepts({**LOCAL, header: value})


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "http://127.0.0.1:8080", "https://[::1]", "http://localhost"],
)
async def test_a_page_of_this_machine_may_call(origin: str) -> None:
    assert await accepts({**LOCAL, "origin": origin})


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "http://localhost.evil.example",
        "file://",
        "localhost",
        "http://evil.example#localhost",
        "http://localhost@evil.example",
        "http://10.0.0.7:3000",
        "chrome-extension://abcdefgh",
        "http://localhost/",
        "http://",
        "http://0.0.0.0:8080",
    ],
)
async def test_a_page_from_elsewhere_is_refused(origin: str) -> None:
    assert not await accepts({**LOCAL, "origin": origin})


async def test_a_page_from_elsewhere_that_names_no_origin_is_refused() -> None:
    assert not await accepts({**LOCAL, "sec-fetch-site": "cross-site"})
    assert await accepts({**LOCAL, "sec-fetch-site": "none"})


async def test_a_dummy_key_changes_nothing() -> None:
    assert await accepts({**LOCAL, "authorization": "Bearer ollama"})


def test_a_running_gateway_lets_this_machine_in_and_nobody_else(tmp_path: Path) -> None:
    gateway = scripted_gateway(
        write_policy(tmp_path / "policy"), {"scripted": ScriptedEngine.saying("hello")}
    )
    with serving(gateway) as server:

        def status(headers: dict[str, str]) -> int:
            return httpx.get(f"{server.url}/v1/models", headers=headers).status_code

        assert status({}) == 200
        assert status({"authorization": "Bearer ollama"}) == 200
        assert status({"host": "evil.example"}) == 401
        assert status({"x-forwarded-for": "127.0.0.1"}) == 401
        assert status({"origin": "https://evil.example"}) == 401
        assert status({"origin": "null"}) == 401
        assert status({}) == 200
