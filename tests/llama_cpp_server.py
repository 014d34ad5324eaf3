"""A real llama_cpp.server for tests: its own process, with the starter model, on loopback."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from engines.starter import GGUF_PATH

START_SECONDS = 120.0


@contextmanager
def llama_cpp_server(model: str = "starter") -> Iterator[str]:
    """Run it until the block ends; its base URL. It knows the starter model as `model`."""
    port = _free_port()
    base_url = f"http://127.0.0.1:{port}/v1"
    settings = {
        "model": str(GGUF_PATH), "model_alias": model, "host": "127.0.0.1", "port": str(port),
        "n_ctx": "2048", "n_threads": "1", "n_threads_batch": "1", "verbose": "false",
    }  # fmt: skip
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with TemporaryDirectory(prefix="llama-cpp-server-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "llama_cpp.server", *arguments],
            cwd=folder,  # it reads an `.env` of where it runs
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(base_url):
                assert process.poll() is None, "llama_cpp.server ended at its start"
                assert time.monotonic() < deadline, "llama_cpp.server does not answer"
                time.sleep(0.05)
            yield base_url
        finally:
            process.kill()
            process.wait(START_SECONDS)


def _answers(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/models", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
