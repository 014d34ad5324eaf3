"""Holes that other gateways had in deciding what a caller may do, each with a test that
names it.

A test sends every spelling of the attack that it knows, and ends with an honest call
that must be answered.
"""

import itertools
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.app import app_of
from gateway.endpoints import needs_admin
from tests.security.gate import Gate, open_gate

PUBLIC = {"health.live", "health.ready"}
OUTSIDE = {"x-forwarded-for": "192.0.2.7"}
SPELLINGS = [
    "/admin/models", "/admin/models/", "//admin/models", "/admin//models", "/./admin/models",
    "/v1/../admin/models", "/v1/%2e%2e/admin/models", "/%61dmin/models", "/ADMIN/models",
    "/admin/models;x", "/admin/models?/v1/models", "/admin%2fmodels", "/admin\\models",
    "/v1/models/../../admin/models", "/v1/models/..%2f..%2fadmin%2fmodels",
]  # fmt: skip


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    # What is sent from this machine comes by a proxy that the settings trust.
    with open_gate(tmp_path_factory.mktemp("gate"), trusted_proxies=("127.0.0.1",)) as gate:
        yield gate


def routes(gate: Gate) -> list[tuple[str, str, str]]:
    """Every method, path and endpoint that the gateway serves, off its own route table."""
    app: Any = app_of(gate.server.gateway)
    return [
        (method, route.path.replace("{model_id:path}", "chat-small"), name)
        for route in app.routes
        for method, (handler, _) in route.route_handler_map.items()
        if method not in ("OPTIONS", "HEAD")
        for name in [handler.opt.get("endpoint") or handler.name]
    ]


def test_cve_2025_63389_no_endpoint_can_be_called_by_nobody(gate: Gate) -> None:
    open_to_all = {
        name
        for method, path, name in routes(gate)
        if gate.ask(method, path, content=b"{}").status_code != 401
    }

    assert open_to_all == PUBLIC


def test_every_endpoint_has_a_name_that_policies_can_allow(gate: Gate) -> None:
    names = {name for _, _, name in routes(gate)}

    assert all(name.count(".") == 1 for name in names)
    assert {"openai.chat", "openai.models", "admin.models"} <= names


def test_ghsa_qqcv_vg9f_5rr3_every_role_meets_every_route(gate: Gate) -> None:
    """Role and team and key, times everything that is served."""
    callers = {
        "member of all": (gate.key("platform"), lambda name: not needs_admin(name)),
        "admin of all": (gate.key("platform", role="admin"), lambda name: True),
        "admin of a team without admin": (
            gate.key("search", role="admin"),
            lambda name: name.startswith("openai."),
        ),
        "admin with a key for one endpoint": (
            gate.key("platform", role="admin", endpoints=["openai.models"]),
            lambda name: name == "openai.models",
        ),
        "admin key that denies admin": (
            gate.key("platform", role="admin", endpoints=["*", "!admin.*"]),
            lambda name: not name.startswith("admin."),
        ),
        "token without a role": (
            gate.provider.token(team="platform"),
            lambda name: not needs_admin(name),
        ),
        "token of an admin": (
            gate.provider.token(team="platform", roles=["gate-admin"]),
            lambda name: True,
        ),
        "team with one endpoint": (
            gate.key("embedders"),
            lambda name: name == "openai.embeddings",
        ),
        "team of another network": (gate.key("office"), lambda name: False),
        "team that is gone": (gate.key("gone", role="admin"), lambda name: False),
    }

    wrong = [
        f"{who}: {method} {path} was {status}"
        for who, (key, may) in callers.items()
        for method, path, name in routes(gate)
        if name not in PUBLIC
        for status in [gate.ask(method, path, key, content=b"{}").status_code]
        if (status == 403) == may(name)
    ]

    assert wrong == []


def test_cve_2026_45339_a_restriction_holds_in_every_header(gate: Gate) -> None:
    narrow = gate.key("search", endpoints=["openai.models"], models=["chat-small"])
    body = {"model": "chat-small", "messages": [{"role": "user", "content": "hello"}]}
    for name, value in (
        ("authorization", f"Bearer {narrow}"),
        ("authorization", narrow),
        ("x-api-key", narrow),
        ("api-key", narrow),
        ("X-API-Key", narrow),
    ):
        headers = {name: value}
        assert gate.ask("GET", "/v1/models", headers=headers).status_code == 200
        answer = gate.ask("POST", "/v1/chat/completions", headers=headers, json=body)
        assert answer.status_code == 403, name

    assert gate.chat(gate.key("search"), "chat-small").status_code == 200


def test_cve_2026_42271_no_path_and_no_host_leads_past_a_guard(gate: Gate) -> None:
    member = gate.key("platform")
    hosts = ["", "x/v1/models?", "x/healthz#", "x?/healthz", "localhost:1/healthz", "\\healthz"]
    for path, host in itertools.product(SPELLINGS, hosts):
        headers = {"host": host} if host else {}
        answer = gate.ask("GET", path, member, headers=headers)
        assert answer.status_code in (400, 403, 404), (path, host)

    assert gate.ask("GET", "/admin/models", gate.key("platform", role="admin")).status_code == 200


@pytest.mark.parametrize(
    "target",
    ["http://x/healthz/../admin/models", "http://healthz/admin/models", "*", "admin/models"],
)
def test_cve_2026_48710_a_request_target_is_not_read_as_a_url(gate: Gate, target: str) -> None:
    parts = urlsplit(gate.url)
    member = gate.key("platform")
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(
            f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            f"x-api-key: {member}\r\n\r\n".encode()
        )
        answer = connection.makefile("rb").read()

    assert b'"engines"' not in answer
    assert answer.split(b" ", 2)[1] in (b"400", b"403", b"404")


def test_cve_2026_47101_nothing_in_a_request_widens_a_key(gate: Gate) -> None:
    narrow = gate.key("search", models=["chat-small"])
    widening = {"allowed_routes": ["*"], "models": ["*"], "role": "admin", "team": "platform"}
    for headers in (
        {"x-penstock-team": "platform", "x-penstock-role": "admin"},
        {"x-team": "platform", "x-user-role": "admin", "openai-organization": "platform"},
    ):
        body = {"model": "chat-secret", "messages": [{"role": "user", "content": "x"}]}
        for more in ({}, {"metadata": {"team": "platform"}}, widening):
            answer = gate.ask(
                "POST", "/v1/chat/completions", narrow, headers=headers, json=body | more
            )
            assert answer.status_code in (400, 404)
        assert gate.ask("GET", "/admin/models", narrow, headers=headers).status_code == 403

    assert gate.chat(narrow, "chat-small").status_code == 200


def test_a_key_cannot_have_more_than_its_team(gate: Gate) -> None:
    wide = gate.key("search", models=["*"], endpoints=["*"], networks=["*"], role="admin")

    assert gate.models(wide) == ["chat-small", "gpt-4o-mini"]
    assert gate.chat(wide, "chat-secret").status_code == 404
    assert gate.ask("GET", "/admin/models", wide).status_code == 403


def test_a_forbidden_model_looks_like_one_that_does_not_exist(gate: Gate) -> None:
    """Same status, same headers, same words but for the name: in every endpoint."""
    key = gate.key("platform", models=["*", "!chat-secret", "!wild-one"])
    names = ["chat-secret", "chat-alias", "nonexistent", "wild-one", "wild-two", "chat-SECRET"]

    def seen(path: str, body: dict[str, Any] | None, name: str) -> tuple[Any, ...]:
        method = "GET" if body is None else "POST"
        options = {} if body is None else {"json": {"model": name, **body}}
        answer = gate.ask(method, path.format(name=name), key, **options)
        told = {
            header: value
            for header, value in answer.headers.items()
            if header not in ("date", "x-request-id", "openai-processing-ms", "content-length")
        }
        return answer.status_code, answer.text.replace(name, "NAME"), tuple(sorted(told.items()))

    for path, body in (
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/models/{name}", None),
    ):
        answers = {seen(path, body, name) for name in names}
        assert len(answers) == 1, (path, answers)
        assert next(iter(answers))[0] == 404

    assert gate.chat(key, "chat-small").status_code == 200


def test_the_list_of_models_is_what_team_and_key_allow(gate: Gate) -> None:
    every = ["chat-alias", "chat-secret", "chat-small", "gpt-4o-mini", "wild-one"]
    assert gate.models(gate.key("platform")) == every
    assert gate.models(gate.key("search")) == ["chat-small", "gpt-4o-mini"]
    assert gate.models(gate.key("platform", models=["chat-*", "!chat-small"])) == [
        "chat-alias",
        "chat-secret",
    ]
    # A key's list can only take away.
    assert gate.models(gate.key("search", models=["chat-secret"])) == []
    assert gate.models(gate.key("search", models=["*"])) == ["chat-small", "gpt-4o-mini"]
    assert gate.models(gate.provider.token(team="search")) == ["chat-small", "gpt-4o-mini"]


def test_what_is_listed_can_be_called_and_nothing_else(gate: Gate) -> None:
    for narrowing in ({}, {"models": ["wild-*"]}, {"models": ["*", "!chat-s*"]}):
        key = gate.key("platform", **narrowing)
        listed = set(gate.models(key))
        for name in ("chat-small", "chat-secret", "chat-alias", "gpt-4o-mini", "wild-one"):
            # An alias is its model, so what it stands for decides.
            assert (gate.chat(key, name).status_code == 200) == (name in listed), name


def test_a_key_is_good_from_its_networks_alone(gate: Gate) -> None:
    inside = gate.key("platform", networks=["10.0.0.0/8", "!10.66.0.0/16"])
    for address, expected in (
        ("10.1.2.3", 200),
        ("::ffff:10.1.2.3", 200),
        ("10.66.0.1", 403),
        ("192.0.2.7", 403),
        ("127.0.0.1", 403),
        ("nonsense", 403),
        ("", 403),
    ):
        headers = {"x-forwarded-for": address}
        answer = gate.ask("GET", "/v1/models", inside, headers=headers)
        assert answer.status_code == expected, address
    assert gate.ask("GET", "/v1/models", inside).status_code == 403  # the proxy itself


def test_a_team_is_let_in_from_its_networks_alone(gate: Gate) -> None:
    office = gate.key("office")
    both = gate.key("office", networks=["192.0.2.7"])

    assert gate.ask("GET", "/v1/models", office, headers=OUTSIDE).status_code == 200
    assert gate.ask("GET", "/v1/models", both, headers=OUTSIDE).status_code == 200
    other = {"x-forwarded-for": "192.0.2.8"}
    assert gate.ask("GET", "/v1/models", office, headers=other).status_code == 200
    assert gate.ask("GET", "/v1/models", both, headers=other).status_code == 403
    assert gate.ask("GET", "/v1/models", office).status_code == 403


def test_cve_2025_59152_nobody_chooses_the_address_that_they_come_from(gate: Gate) -> None:
    inside = gate.key("platform", networks=["10.0.0.0/8"])
    for headers in (
        {"x-forwarded-for": "10.1.2.3, 192.0.2.7"},
        {"x-forwarded-for": "10.1.2.3,192.0.2.7"},
        {"x-real-ip": "10.1.2.3"},
        {"forwarded": "for=10.1.2.3"},
        {"x-client-ip": "10.1.2.3"},
        {"true-client-ip": "10.1.2.3"},
        {"x-forwarded-for": "192.0.2.7", "x-real-ip": "10.1.2.3"},
    ):
        assert gate.ask("GET", "/v1/models", inside, headers=headers).status_code == 403, headers

    headers = {"x-forwarded-for": "192.0.2.7, 10.1.2.3"}
    assert gate.ask("GET", "/v1/models", inside, headers=headers).status_code == 200


def test_without_trusted_proxies_no_header_says_where_a_call_comes_from(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with open_gate(tmp_path_factory.mktemp("gate")) as gate:
        inside = gate.key("platform", networks=["10.0.0.0/8"])
        here = gate.key("platform", networks=["127.0.0.0/8"])
        headers = {"x-forwarded-for": "10.1.2.3"}

        assert gate.ask("GET", "/v1/models", inside, headers=headers).status_code == 403
        assert gate.ask("GET", "/v1/models", here, headers=headers).status_code == 200


@pytest.mark.parametrize("proxies", [(), ("127.0.0.1",)])
def test_cve_2024_28224_a_page_or_a_proxy_is_not_this_machine(
    tmp_path_factory: pytest.TempPathFactory, proxies: tuple[str, ...]
) -> None:
    with open_gate(
        tmp_path_factory.mktemp("gate"),
        more_plugins='"anonymous", ',
        tables='[anonymous]\nteam = "platform"\nrole = "admin"',
        trusted_proxies=proxies,
    ) as gate:
        for headers in (
            {"host": "evil.example"},
            {"host": "evil.example:8080"},
            {"host": "localhost.evil.example"},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site"},
            {"x-forwarded-for": "192.0.2.7"},
            {"x-forwarded-for": "127.0.0.1"},
            {"x-forwarded-for": "192.0.2.7, 127.0.0.1"},
            {"forwarded": "for=127.0.0.1"},
        ):
            for path in ("/v1/models", "/admin/models"):
                assert gate.ask("GET", path, headers=headers).status_code == 401, headers

        assert gate.ask("GET", "/v1/models").status_code == 200
        assert gate.ask("GET", "/admin/models").status_code == 200


def test_a_key_whose_limits_are_gone_is_not_an_unlimited_key(gate: Gate) -> None:
    assert gate.chat(gate.key("search", limits="bulk"), "chat-small").status_code == 200
    assert gate.chat(gate.key("search", limits="gone"), "chat-small").status_code == 403


def test_an_endpoint_is_refused_before_its_body_is_read(gate: Gate) -> None:
    parts = urlsplit(gate.url)
    key = gate.key("embedders")
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            + f"x-api-key: {key}\r\ncontent-length: 1000000\r\n\r\n".encode()
        )
        # Not a byte of the body is sent, and the answer is there.
        assert b" 403 " in connection.makefile("rb").readline()
