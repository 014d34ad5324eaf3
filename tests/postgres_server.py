"""A real PostgreSQL for tests: its own cluster and processes, a Unix socket in its own folder."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

START_SECONDS = 50.0
DEBIAN = Path("/usr/lib/postgresql")


def binary(name: str) -> str:
    """The program's path; Debian keeps most of PostgreSQL's outside of PATH."""
    found = shutil.which(name) or next(
        (str(path) for path in sorted(DEBIAN.glob(f"*/bin/{name}"), reverse=True)), None
    )
    assert found is not None, f"{name} is not installed; `make test` installs postgresql"
    return found


class PostgresServer:
    """One cluster. PostgreSQL refuses to run as root, so then it runs as nobody."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://penstock@/{database}?host={self._folder}"

    def initialize(self) -> None:
        subprocess.run(
            [
                binary("initdb"), "--pgdata", str(self._data), "--username", "penstock",
                "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync",
            ],
            check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._as,
        )  # fmt: skip

    def start(self) -> None:
        """Start, and return when it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    binary("postgres"), "-D", str(self._data), "-k", str(self._folder), "-F",
                    "-c", "listen_addresses=", "-c", "max_connections=60",
                    "-c", "shared_buffers=16MB", "-c", "dynamic_shared_memory_type=mmap",
                ],
                stdout=log, stderr=log, cwd=self._folder, **self._as,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while self._status() != "ready":
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it as an operator would, without waiting for its clients."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would: no goodbye to anybody."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop every process of it without closing anything."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def emptied_database(self) -> str:
        """The URL of a database with nothing in it; all tests of a cluster share it."""
        # A database of its own for each would be 7 MB on the disk for each.
        self.ask("postgres", "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return self.url()

    def ask(self, database: str, sql: str) -> str:
        """What psql prints, with `|` between columns."""
        return subprocess.run(
            [
                binary("psql"), "-h", str(self._folder), "-U", "penstock", "-d", database,
                "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql,
            ],
            check=True, capture_output=True, text=True, cwd=self._folder, **self._as,
        ).stdout.strip()  # fmt: skip

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        processes = self._processes()
        if how == signal.SIGKILL:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        else:
            self._process.send_signal(how)
        self._process.wait(START_SECONDS)
        psutil.wait_procs(processes[1:], timeout=START_SECONDS)
        self._process = None

    def _status(self) -> str:
        """`ready` as soon as the server has said so in its file."""
        with suppress(OSError):
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            is_ours = self._process is not None and lines[0].strip() == str(self._process.pid)
            if is_ours and len(lines) >= 8:
                return lines[7].strip()
        return ""


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL that is gone afterwards."""
    # A socket's path may have about a hundred characters, so not under pytest's folders.
    with TemporaryDirectory(prefix="penstock-pg-") as folder:
        server = PostgresServer(Path(folder))
        server.initialize()
        server.start()
        try:
            yield server
        finally:
            server.kill()
