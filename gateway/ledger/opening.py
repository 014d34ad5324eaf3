"""Opens the ledger's database and brings its schema up to date.

Any number of processes may open one SQLite file at the same moment: the file is
made aside in WAL mode and linked into place, and the schema is upgraded under
SQLite's write lock, so the second one waits and then finds nothing to do.
"""

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.ledger.private_files import create_once, keep_private

MIGRATIONS = Path(__file__).parent / "migrations"

_ASYNCPG = "postgresql+asyncpg"
_ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": _ASYNCPG, "postgres": _ASYNCPG}
ANSWER_SECONDS = 1.5  # within which a server ends a transaction
CONNECT_SECONDS = 5.0
WRITES_FIRST = "penstock_writes_first"  # an execution option of a connection
_BUSY_SECONDS = 10.0
_UPGRADE_SECONDS = 60.0
_UPGRADE_LOCK = 0x70656E73746F636B  # "penstock"


class LedgerNotOpened(Exception):
    """The ledger cannot be used: a wrong URL, a file that is no ledger, no server there."""


class LedgerAway(LedgerNotOpened):
    """The server does not answer now, and may later: nothing is known to be wrong."""


async def open_engine(given: str) -> AsyncEngine:
    """Connect to the database at this SQLAlchemy URL and upgrade it. Raises `LedgerNotOpened`."""
    engine = await engine_at(given)
    try:
        await upgrade(engine)
    except BaseException:
        await engine.dispose()
        raise
    return engine


async def engine_at(given: str) -> AsyncEngine:
    """The engine of this URL, which no server was asked about yet. Raises `LedgerNotOpened`."""
    url = _url_of(given)
    with _explained(url):
        if (file := _file_of(url)) is not None:
            await asyncio.to_thread(create_once, file, _write_empty_database)
        return _engine_for(url)


async def upgrade(engine: AsyncEngine) -> None:
    """Bring the schema up to date. Raises `LedgerNotOpened`, of a server away `LedgerAway`."""
    with _explained(engine.url):
        await _upgrade(engine)
        if (file := _file_of(engine.url)) is not None:
            keep_private(file)  # not before it has shown to be a ledger


@contextmanager
def _explained(url: URL) -> Generator[None, None, None]:
    shown = url.render_as_string(hide_password=True)
    try:
        yield
    except CommandError as error:
        raise LedgerNotOpened(
            f"the ledger {shown} was written by another version of Penstock ({error}); "
            "start the version that wrote it, or set PENSTOCK_LEDGER to another ledger"
        ) from error
    except _failures(url) as error:
        kind = LedgerAway if _is_away(url, error) else LedgerNotOpened
        raise kind(
            f"the ledger {shown} cannot be opened: {reason_of(error)}; "
            "PENSTOCK_LEDGER (a SQLAlchemy URL) or PENSTOCK_DATA_DIR names another place"
        ) from error


def _failures(url: URL) -> tuple[type[Exception], ...]:
    """What opening a database raises; asyncpg lets errors of its own through."""
    failures = (SQLAlchemyError, sqlite3.Error, OSError, ModuleNotFoundError)
    if url.drivername != _ASYNCPG:
        return failures
    # Slow to import, and SQLite needs none of it.
    asyncpg: Any = import_module("asyncpg")
    return (*failures, asyncpg.PostgresError)


def _is_away(url: URL, error: BaseException) -> bool:
    """No server, one that says nothing in time, or one that has said: later."""
    if url.drivername != _ASYNCPG:
        return False
    exceptions: Any = import_module("asyncpg.exceptions")
    away = (
        OSError,
        exceptions.PostgresConnectionError,
        exceptions.OperatorInterventionError,  # it starts, or ends
        exceptions.InsufficientResourcesError,  # too many connections
    )
    seen: BaseException | None = error
    while seen is not None:  # SQLAlchemy's error, its adapter's, and in the end the driver's
        if isinstance(seen, away):
            return True
        seen = getattr(seen, "orig", None) or seen.__cause__
    return False


def reason_of(error: BaseException) -> str:
    """Why the database failed, in its own words and without the statement."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def _url_of(given: str) -> URL:
    try:
        url = make_url(given)
        url = url.set(drivername=_ASYNC_DRIVERS.get(url.drivername, url.drivername))
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # The text may hold a password, and what is not a URL cannot be masked.
        raise LedgerNotOpened(
            "PENSTOCK_LEDGER is not a SQLAlchemy URL of a known database; "
            "it reads like sqlite+aiosqlite:////var/lib/penstock/ledger.db"
        ) from None
    if url.get_backend_name() == "sqlite" and (url.host or url.username):
        # The rest would be taken for a file's name below the working directory.
        raise LedgerNotOpened(
            "PENSTOCK_LEDGER names a host, and SQLite has none: an absolute path takes four "
            "slashes, as in sqlite+aiosqlite:////var/lib/penstock/ledger.db"
        )
    return url


def _file_of(url: URL) -> Path | None:
    """The SQLite file, or None for another database and for one in memory."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _write_empty_database(path: Path) -> None:
    # Two processes that switch one file to WAL at once deadlock and one fails at once,
    # whatever the busy timeout; made so before it has a name, it is never switched.
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL").fetchall()


def _engine_for(url: URL) -> AsyncEngine:
    # Parameters stay out of error texts: a digest is one of them.
    if url.get_backend_name() != "sqlite":
        return create_async_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            pool_timeout=ANSWER_SECONDS,
            connect_args={"timeout": CONNECT_SECONDS} if url.drivername == _ASYNCPG else {},
        )
    engine = create_async_engine(url, hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # Python's own idea of when a transaction begins leaves DDL outside; see `_begin_sqlite`.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(_BUSY_SECONDS * 1000)}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another wrote
    # in between; asking for the write lock at the start waits for it instead.
    writes_first = connection.get_execution_options().get(WRITES_FIRST, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes_first else "BEGIN")


async def _upgrade(engine: AsyncEngine) -> None:
    async with asyncio.timeout(_UPGRADE_SECONDS), engine.connect() as connection:
        await connection.execution_options(**{WRITES_FIRST: True})
        async with connection.begin():
            if engine.dialect.name == "postgresql":
                # Held until the end of the transaction; SQLite has its write lock.
                await connection.execute(select(func.pg_advisory_xact_lock(_UPGRADE_LOCK)))
            await connection.run_sync(_run_migrations)
    if engine.dialect.name != "sqlite":
        await engine.dispose()  # `Database` must see every connection being made


def _run_migrations(connection: Connection) -> None:
    config = Config()
    # Config reads `%` as interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
