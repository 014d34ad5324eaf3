"""One ledger for each test that asks for `ledger`: on SQLite, and on a real PostgreSQL."""

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from gateway.ledger import Ledger, open_ledger
from tests.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.emptied_database()


@pytest.fixture
async def either_ledger(ledger_url: str) -> AsyncGenerator[Ledger, None]:
    async with open_ledger(ledger_url) as ledger:
        yield ledger
