"""A disk of a few hundred kilobytes, which only root can mount."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """Mounted at `folder`; what is in it is in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def grow(self, size: str) -> None:
        assert _mount(self.folder, "-o", f"remount,size={size}")


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[SmallDisk]:
    """A disk of this size; the test is skipped where nobody may mount one."""
    folder.mkdir()
    if not _mount(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        pytest.skip("only root can mount a small disk; other tests have a made-up one")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _mount(folder: Path, *options: str) -> bool:
    return subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode == 0
