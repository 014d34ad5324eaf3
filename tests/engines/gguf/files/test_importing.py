"""Files of this machine that become blobs: whole and as they were hashed, or not at all."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engines.errors import RequestRefused, Unavailable
from engines.gguf.files.digests import Digest, digest_of
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.importing import import_file, keep, unfinished


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path / "models")


def put(path: Path, content: bytes = b"content") -> Path:
    path.write_bytes(content)
    return path


def leftovers(folder: ModelFolder) -> list[Path]:
    return list((folder.blobs / ".copies").iterdir())


def test_a_file_becomes_a_blob_under_its_digest_and_stays_where_it_was(
    folder: ModelFolder, tmp_path: Path
) -> None:
    content = os.urandom(9_000_001)
    path = put(tmp_path / "m", content)

    digest = import_file(folder, path)

    assert digest == digest_of(content)
    assert folder.blob(digest).read_bytes() == content
    assert path.read_bytes() == content
    assert not folder.blob(digest).is_symlink()
    assert leftovers(folder) == []


def test_it_works_where_the_kernel_copies_nothing(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(os, "copy_file_range", refuse)

    digest = import_file(folder, put(tmp_path / "m", b"x" * 100_000))

    assert folder.blob(digest).stat().st_size == 100_000


def test_a_link_is_followed_and_what_is_no_file_is_refused(
    folder: ModelFolder, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(put(tmp_path / "m"))
    os.mkfifo(tmp_path / "pipe")

    assert import_file(folder, tmp_path / "link") == digest_of(b"content")
    with pytest.raises(RequestRefused, match="'pipe' is not a regular file"):
        import_file(folder, tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "gone", Path("/dev/zero")):
        with pytest.raises((RequestRefused, Unavailable)):
            import_file(folder, path)
    assert leftovers(folder) == []


def test_another_digest_than_expected_is_no_blob(folder: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="the file has digest") as refused:
        import_file(folder, put(tmp_path / "m"), Digest("0" * 64))

    assert refused.value.param == "digest"
    assert [path.name for path in folder.blobs.iterdir()] == [".copies"]
    assert leftovers(folder) == []


def test_a_full_disk_leaves_nothing(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", fail)
    monkeypatch.setattr(os, "write", fail)

    with pytest.raises(Unavailable, match="'m' cannot be copied: No space left on device"):
        import_file(folder, put(tmp_path / "m"))

    assert leftovers(folder) == []


def test_writes_that_take_less_than_they_are_given_lose_nothing(
    folder: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(30_000)
    path, write = put(tmp_path / "m", content), os.write
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:999]))

    assert folder.blob(import_file(folder, path)).read_bytes() == content


def test_a_folder_that_is_only_read_takes_nothing(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models", is_writable=False)

    with pytest.raises(RequestRefused, match="is only read here"):
        import_file(folder, put(tmp_path / "m"))

    assert not folder.path.exists()


def test_an_unfinished_file_has_no_name_and_is_gone_unless_it_is_kept(folder: ModelFolder) -> None:
    with unfinished(folder) as path:
        path.write_bytes(b"half")
        assert path.parent.name == ".copies"
    assert leftovers(folder) == []

    with unfinished(folder) as path:
        path.write_bytes(b"whole")
        digest = keep(folder, path)
    assert folder.blob(digest).read_bytes() == b"whole"
    assert leftovers(folder) == []


def test_two_at_once_do_not_take_each_others_files_away(folder: ModelFolder) -> None:
    with unfinished(folder) as first, unfinished(folder) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")

        assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")


HALF = """
import sys; from pathlib import Path
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.importing import unfinished
with unfinished(ModelFolder(Path(sys.argv[1]))) as path:
    path.write_bytes(b"half")
    print("made", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next(folder: ModelFolder) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HALF, str(folder.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"made\n"
    with unfinished(folder):
        assert len(leftovers(folder)) == 2  # it lives
    process.kill()
    process.wait()
    process.stdout.close()
    process.stdin.close()
    assert len(leftovers(folder)) == 1

    with unfinished(folder):
        assert len(leftovers(folder)) == 1
    assert leftovers(folder) == []


def test_a_file_that_changes_meanwhile_is_what_was_hashed(
    folder: ModelFolder, tmp_path: Path
) -> None:
    path = put(tmp_path / "m", b"a" * 20_000_000)
    stop = threading.Event()

    def spoil() -> None:
        with path.open("r+b") as file:
            while not stop.is_set():
                file.seek(19_999_990)
                file.write(os.urandom(10))
                file.flush()

    writer = threading.Thread(target=spoil)
    writer.start()
    try:
        digests = {import_file(folder, path) for _ in range(3)}
    finally:
        stop.set()
        writer.join()

    for digest in digests:
        content = folder.blob(digest).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest.hexadecimal
