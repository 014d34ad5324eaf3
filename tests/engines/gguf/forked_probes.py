"""Does what the probe's child does, for many files: one process, and a fork of it for each file.

`python -m tests.engines.gguf.forked_probes` reads paths from its standard input and writes
one line for each: "loads", "refused" and the reason, or "SIGNAL". Forks are 50 times
quicker than new interpreters; what is run in them is `engines.gguf.probe.step_once`.
"""

import os
import resource
import signal
import sys
from pathlib import Path

import structlog

from engines.gguf import native
from engines.gguf.probe import ALONE, step_once

_SECONDS = 20


def main() -> None:
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    native.llama()
    for line in sys.stdin:
        print(_outcome(Path(line.strip())), flush=True)  # noqa: T201


def _outcome(path: Path) -> str:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        os._exit(_probe(path, write))
    os.close(write)
    with os.fdopen(read, "rb") as said:
        reason = said.read(300).decode("utf-8", "replace").replace("\n", " ")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"refused {reason}" if os.WEXITSTATUS(status) else "loads"


def _probe(path: Path, write: int) -> int:
    signal.alarm(_SECONDS)  # SIGALRM: it hung
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    limit = path.stat().st_size * 3 + 4 * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        step_once(path, use_extra_buffers=False, pooling=None, companions=ALONE)
    except Exception as error:  # noqa: BLE001 - as the probe's child
        os.write(write, (str(error) or type(error).__name__).encode())
        return 1
    return 0


if __name__ == "__main__":
    main()
