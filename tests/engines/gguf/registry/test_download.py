"""Disks without room."""

from pathlib import Path

import msgspec
import pytest

from engines.errors import Unavailable
from tests.engines.gguf.creating import blob_of, created
from tests.engines.gguf.registry.conftest import WEIGHTS, weights_path
from tests.engines.gguf.registry.fake_host import (
    FakeHost,
)
from tests.engines.gguf.registry.pulling import (
    QUICK,
    blob,
    check,
    pulled,
    refused,
)
from tests.engines.gguf.registry.small_disk import mounted
from tests.gguf_files import write_gguf


async def test_a_model_that_does_not_fit_on_the_disk_is_refused_before_a_byte_is_fetched(
    host: FakeHost, tmp_path: Path
) -> None:
    said = await refused(tmp_path, host, free_bytes=lambda _: 200_000)

    assert said.startswith("0.3 MB are missing and the disk of ")
    assert "has 0.2 MB left: make room" in said
    assert len(host.requests) == 1


async def test_a_disk_that_fills_up_keeps_what_was_fetched(host: FakeHost, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "200k") as disk:
        folder = disk.folder
        # Somebody else fills the disk after it was looked at.
        said = await refused(folder, host, free_bytes=lambda _: 10**9, num_streams=1)
        assert "is full; what was fetched is kept: make room and pull again" in said

        disk.grow("4m")
        before = len(host.asked(weights_path(host)))
        await pulled(folder, f"{host.host}/team/tiny", num_streams=1)
        assert blob(folder, WEIGHTS).read_bytes() == WEIGHTS
        assert len(host.asked(weights_path(host))) - before < 5
        check(folder)


async def test_a_model_that_is_made_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "whole.gguf", quantization="f16", width=256, extra_tokens=2000)
    with mounted(tmp_path / "small", "4m") as disk:
        digest = blob_of(disk.folder, whole)
        filler = disk.folder / "filler"
        filler.write_bytes(bytes(4 * 2**20 - whole.stat().st_size - 200_000))

        how = msgspec.structs.replace(QUICK, free_bytes=lambda _: 10**9)
        with pytest.raises(Unavailable, match="could not quantize the model"):
            await created(disk.folder, "small", f"FROM @{digest}", quantize="q8_0", how=how)
        with pytest.raises(Unavailable, match="cannot be copied: No space left"):
            blob_of(disk.folder, write_gguf(tmp_path / "other.gguf", width=256))

        assert not (disk.folder / "manifests").exists()
        assert list((disk.folder / "blobs" / ".copies").iterdir()) == []
        check(disk.folder)
