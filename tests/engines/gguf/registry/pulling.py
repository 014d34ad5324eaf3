"""Pulls in tests: impatient, in small parts, and what must be true after any of them."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from engines.errors import EngineError
from engines.gguf.files.folder import ModelFolder
from engines.gguf.pull import Pull
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.download import HowToFetch
from engines.gguf.registry.web import Patience
from engines.protocol import Progress
from tests.engines.gguf.registry.fake_host import FakeHost

QUICK = HowToFetch(
    patience=Patience(
        connect_seconds=10.0,
        stall_seconds=10.0,
        max_failures=3,
        first_delay_seconds=0.001,
        max_delay_seconds=0.002,
    ),
    part_bytes=64 * 1024,
    num_streams=4,
    spare_bytes=0,
)


def pull_of(
    folder: Path,
    name: str,
    *,
    environment: Mapping[str, str] | None = None,
    **how: object,
) -> Pull:
    credentials = Credentials(environment or {}, home=folder.parent / "nobody")
    quick = msgspec.structs.replace(QUICK, **how) if how else QUICK
    return Pull(ModelFolder(folder), name, credentials=credentials, how=quick)


async def pulled(folder: Path, name: str, **how: object) -> list[Progress]:
    """All steps of a pull that succeeds."""
    return [step async for step in pull_of(folder, name, **how).steps()]  # type: ignore[arg-type]


def check(folder: Path) -> None:
    """Never a wrong byte under a right name, and nothing under a name that is none."""
    for path in (folder / "blobs").glob("sha256-*"):
        if re.fullmatch("sha256-[0-9a-f]{64}", path.name):
            assert f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}" == path.name
        else:
            assert re.fullmatch(r"sha256-[0-9a-f]{64}-partial(\.json)?", path.name)
    manifests = folder / "manifests"
    for path in manifests.rglob("*"):
        if path.is_file():
            name = path.relative_to(manifests)
            assert len(name.parts) == 4
            assert re.fullmatch("[0-9A-Za-z_.:/-]+", name.as_posix())


def blob(folder: Path, content: bytes) -> Path:
    """Where this content would be."""
    return folder / "blobs" / f"sha256-{hashlib.sha256(content).hexdigest()}"


def leftovers(folder: Path) -> list[str]:
    """What is there besides whole blobs and manifests."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and not re.fullmatch("sha256-[0-9a-f]{64}", path.name)
        and "manifests" not in path.parts
        and path.name != "folder"  # the lock of the folder
    )


async def refused(folder: Path, host: FakeHost, **how: object) -> str:
    """Why a pull fails; whatever it was, nothing has a name that it must not have."""
    with pytest.raises(EngineError) as error:
        await pulled(folder, f"{host.host}/team/tiny", **how)
    check(folder)
    assert not (folder / "manifests").exists()
    assert not list((folder / "blobs").glob("sha256-" + "?" * 64))
    return error.value.message
