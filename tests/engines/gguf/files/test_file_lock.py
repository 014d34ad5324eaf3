"""A lock that processes share."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engines.errors import Unavailable
from engines.gguf.files.file_lock import FileLock

HOLD = """
import sys; from pathlib import Path; from engines.gguf.files.file_lock import FileLock
lock = FileLock(Path(sys.argv[1])); assert lock.try_take(); print("held", flush=True); input()
"""


def test_one_at_a_time_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "one"
    first, second = FileLock(path), FileLock(path)

    assert first.try_take()
    assert not second.try_take()
    first.release()
    assert second.try_take()
    second.release()
    second.release()


def test_a_killed_process_holds_it_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "one"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert not FileLock(path).try_take()

        process.send_signal(signal.SIGKILL)
        process.wait()

    with FileLock(path) as lock:
        lock.release(remove=True)
    assert not path.exists()


def test_whoever_waited_for_a_file_that_was_removed_takes_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "one"
    inside: list[int] = []
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(50):
            lock = FileLock(path)
            lock.__enter__()
            inside.append(1)
            most = max(most, len(inside))
            inside.pop()
            lock.release(remove=True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 1


def test_a_place_that_has_no_room_for_locks_says_why(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(Unavailable, match="cannot be opened: Is a directory"):
        FileLock(tmp_path / "folder").try_take()
