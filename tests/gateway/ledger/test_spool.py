import subprocess
import sys
from pathlib import Path

import pytest

from gateway.ledger.spool import FILE_BYTES, Spool

HOLD = """
import sys
from pathlib import Path
from gateway.ledger.spool import Spool

spool = Spool(Path(sys.argv[1]), max_bytes=10_000)
spool.append([b"theirs"])
print("kept", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def taken(spool: Spool) -> list[bytes]:
    """Everything that waits, in order, as if it had been written down."""
    lines: list[bytes] = []
    while (spooled := spool.take()) is not None:
        lines += spooled.lines
        spool.done(spooled)
    return lines


def test_what_was_kept_is_taken_in_order_once(folder: Path) -> None:
    spool = Spool(folder, max_bytes=1000)

    assert spool.take() is None
    assert spool.append([b"one", b"two"]) == 2
    assert spool.append([b"three"]) == 1

    assert taken(spool) == [b"one", b"two", b"three"]
    assert list(folder.iterdir()) == []


def test_what_is_taken_and_not_done_is_taken_again(folder: Path) -> None:
    spool = Spool(folder, max_bytes=1000)
    spool.append([b"one"])

    first = spool.take()
    spool.append([b"two"])

    assert first is not None
    assert first.lines == [b"one"]
    assert taken(spool) == [b"one", b"two"]


def test_only_its_owner_may_read_it(folder: Path) -> None:
    Spool(folder, max_bytes=1000).append([b"one"])

    [file] = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_it_never_grows_beyond_its_bound(folder: Path) -> None:
    spool = Spool(folder, max_bytes=25)

    kept = spool.append([b"123456789"] * 5)

    assert kept == 2
    assert spool.append([b"123456789"]) == 0
    assert spool.append([b"1234"]) == 1
    assert sum(file.stat().st_size for file in folder.iterdir()) == 25


def test_the_bound_is_of_all_files_and_what_is_done_makes_room(folder: Path) -> None:
    other, spool = Spool(folder, max_bytes=20), Spool(folder, max_bytes=20)
    other.append([b"123456789"])
    assert spool.append([b"123456789"] * 2) == 1
    other.close()

    assert taken(spool) == [b"123456789"] * 2
    assert spool.append([b"123456789"] * 2) == 2


def test_a_full_file_is_left_for_a_new_one(folder: Path) -> None:
    spool = Spool(folder, max_bytes=10 * FILE_BYTES)

    spool.append([b"x" * FILE_BYTES])
    spool.append([b"small"])

    assert sorted(file.suffix for file in folder.iterdir()) == [".open", ".ready"]


def test_a_line_that_a_crash_cut_off_is_not_taken(folder: Path) -> None:
    spool = Spool(folder, max_bytes=1000)
    spool.append([b"whole"])
    spool.close()
    [file] = folder.iterdir()
    with file.open("ab") as content:
        content.write(b"ha")

    assert taken(spool) == [b"whole"]


def test_a_disk_that_fails_leaves_no_half_of_a_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(folder, max_bytes=1000)
    spool.append([b"before"])

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            spool.append([b"lost"])

    spool.append([b"after"])
    assert taken(spool) == [b"before", b"after"]


def test_the_file_of_a_living_process_is_left_to_it_and_a_dead_ones_is_taken(folder: Path) -> None:
    spool = Spool(folder, max_bytes=10_000)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"kept\n"

        assert taken(spool) == []
        process.kill()
        process.wait(20)

    assert taken(spool) == [b"theirs"]


def test_two_that_share_a_folder_take_everything_between_them(folder: Path) -> None:
    one, two = Spool(folder, max_bytes=1000), Spool(folder, max_bytes=1000)
    one.append([b"1"])
    two.append([b"2"])

    assert taken(one) == [b"1"]
    two.close()
    assert taken(one) == [b"2"]
    assert two.take() is None
