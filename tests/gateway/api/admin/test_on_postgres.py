"""What PostgreSQL would not take is the caller's mistake, and not a database that is away."""

from collections.abc import Iterator

import httpx
import pytest

from tests.fakes import ScriptedEngine
from tests.gateway.api.admin.conftest import PLUGINS
from tests.postgres_server import postgres_server
from tests.serving import scripted_gateway, serving, settings_in, write_policy


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("postgres")
    directory = write_policy(folder / "policy", {"gateway.toml": PLUGINS})
    with postgres_server() as postgres:
        settings = settings_in(folder, policy=directory, ledger=postgres.emptied_database())
        gateway = scripted_gateway(directory, {"scripted": ScriptedEngine()}, settings=settings)
        with (
            serving(gateway) as server,
            httpx.Client(base_url=f"{server.url}/admin/", timeout=20) as client,
        ):
            yield client


@pytest.mark.parametrize(
    "path",
    ["usage?team=%00", "usage?model=a%00", "usage?key=%00", "usage?by=day&principal=%00",
     "audit?subject=%00", "audit?action=a%00b", "calls?team=%00", "keys?team=%00"],
)  # fmt: skip
def test_a_nul_in_a_filter_is_a_400(client: httpx.Client, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] in path


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), *(("POST", f"/{verb}") for verb in ("disable", "enable"))],
)
@pytest.mark.parametrize("key_id", ["a%00", "%00", "aaaaaaaaaaaa%00", "%ED%A0%80"])
def test_a_nul_in_the_id_of_a_key_is_a_404(
    client: httpx.Client, method: str, path: str, key_id: str
) -> None:
    answer = client.request(method, f"keys/{key_id}{path}")

    assert answer.status_code == 404, answer.text


@pytest.mark.parametrize(
    ("verb", "body"),
    [("expire", {"expires_seconds": 5}), ("narrow", {"models": ["*"]}), ("rotate", {})],
)
def test_so_it_is_where_there_is_a_body(
    client: httpx.Client, verb: str, body: dict[str, object]
) -> None:
    assert client.post(f"keys/a%00/{verb}", json=body).status_code == 404
