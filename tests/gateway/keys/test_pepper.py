import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.keys import Pepper, PepperInvalid, open_pepper
from gateway.settings import Settings


def test_the_pepper_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")

    first, second = open_pepper(settings), open_pepper(settings)

    file = tmp_path / "data" / "pepper"
    assert first.version == second.version
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(file.read_text())) == 32


def test_processes_that_start_at_once_agree_on_one_pepper(tmp_path: Path) -> None:
    source = """
import sys
from pathlib import Path
from gateway.keys import open_pepper
from gateway.settings import Settings
print("ready", flush=True)
sys.stdin.readline()
print(open_pepper(Settings(data_dir=Path(sys.argv[1]))).version)
"""
    command = [sys.executable, "-c", source, str(tmp_path / "data")]
    pipe = subprocess.PIPE
    starting = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    for process in starting:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    for process in starting:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    versions = {process.communicate(timeout=50)[0] for process in starting}

    assert len(versions) == 1
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["pepper"]


def test_the_environments_pepper_comes_first(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", pepper="e" * 32)

    assert open_pepper(settings).version == Pepper([b"e" * 32]).version
    assert not (tmp_path / "data").exists()


def test_a_short_pepper_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(PepperInvalid, match=r"PENSTOCK_PEPPER.*32 characters.*openssl") as refused:
        open_pepper(Settings(data_dir=tmp_path, pepper="hunter2"))

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"short\n", b"\xff\xfe" * 40])
def test_a_damaged_pepper_file_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "pepper"
    file.write_bytes(content)

    with pytest.raises(PepperInvalid, match=str(file)):
        open_pepper(Settings(data_dir=tmp_path))

    assert file.read_bytes() == content
