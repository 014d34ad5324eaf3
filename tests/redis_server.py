"""A real Redis for tests: its own process, a Unix socket in its own folder, nothing on disk."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

START_SECONDS = 30.0


class RedisServer:
    """One redis-server; `pause` stops its process without closing anything."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self._is_paused = False

    def start(self) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None, "redis-server is not installed; `make test` installs it"
        self._process = subprocess.Popen(
            [
                binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "",
                "--appendonly", "no", "--daemonize", "no", "--dir", str(self.socket.parent),
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at its start"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def pause(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._is_paused = False

    def kill(self) -> None:
        """End it as a crash would: no goodbye, and everything forgotten."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None
            self._is_paused = False
            self.socket.unlink(missing_ok=True)

    def ask(self, *words: str) -> bytes:
        """One command by a connection of its own; the raw reply."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(START_SECONDS)
            client.connect(str(self.socket))
            client.sendall(
                f"*{len(words)}\r\n".encode()
                + b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)
            )
            return client.recv(1 << 16)

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == b"+PONG\r\n"
        except OSError:
            return False


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A running Redis that is gone afterwards."""
    # A socket's path may have about a hundred characters, so not under pytest's folders.
    with TemporaryDirectory(prefix="penstock-redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()
