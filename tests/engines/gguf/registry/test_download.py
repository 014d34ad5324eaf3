"""Disks without room."""

import subprocess
from pathlib import Path

import pytest

from tests.engines.gguf.registry.conftest import WEIGHTS, weights_path
from tests.engines.gguf.registry.fake_host import (
    FakeHost,
)
from tests.engines.gguf.registry.pulling import (
    blob,
    check,
    pulled,
    refused,
)


async def test_a_model_that_does_not_fit_on_the_disk_is_refused_before_a_byte_is_fetched(
    host: FakeHost, tmp_path: Path
) -> None:
    said = await refused(tmp_path, host, free_bytes=lambda _: 200_000)

    assert said.startswith("0.3 MB are missing and the disk of ")
    assert "has 0.2 MB left: make room" in said
    assert len(host.requests) == 1


async def test_a_disk_that_fills_up_keeps_what_was_fetched(host: FakeHost, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if not _mount(folder, "-t", "tmpfs", "-o", "size=200k", "tmpfs"):
        pytest.skip("only root can mount a small disk; the test above has a made-up one")
    try:
        # Somebody else fills the disk after it was looked at.
        said = await refused(folder, host, free_bytes=lambda _: 10**9, num_streams=1)
        assert "is full; what was fetched is kept: make room and pull again" in said

        assert _mount(folder, "-o", "remount,size=4m")
        before = len(host.asked(weights_path(host)))
        await pulled(folder, f"{host.host}/team/tiny", num_streams=1)
        assert blob(folder, WEIGHTS).read_bytes() == WEIGHTS
        assert len(host.asked(weights_path(host))) - before < 5
        check(folder)
    finally:
        _unmount(folder)


def _mount(folder: Path, *options: str) -> bool:
    return subprocess.run(["mount", *options, str(folder)], capture_output=True).returncode == 0


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)
