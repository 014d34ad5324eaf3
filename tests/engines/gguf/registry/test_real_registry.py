"""Pulls from and pushes to a real registry: whole, cut short, damaged, killed, two at once."""

import asyncio
import json
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.errors import ModelNotFound, Unavailable
from engines.gguf.files.folder import ModelFolder
from engines.gguf.files.names import parse_name
from engines.gguf.library import Library
from engines.gguf.push import Push
from engines.gguf.registry.credentials import Credentials
from engines.gguf.registry.parts import done_bytes_of
from tests.docker_registry import DockerRegistry, docker_registry
from tests.engines.gguf.registry.cutting_proxy import CuttingProxy
from tests.engines.gguf.registry.pulling import (
    QUICK,
    blob,
    check,
    leftovers,
    pull_of,
    pulled,
)

WEIGHTS = random.Random(1).randbytes(2_000_000)
MODEL = {"model": WEIGHTS, "system": b"be kind", "params": b'{"stop":["END"]}'}


@pytest.fixture(scope="module")
def registry() -> Iterator[DockerRegistry]:
    with docker_registry() as running:
        running.put("team/tiny", "latest", MODEL)
        yield running


async def test_a_pulled_model_is_what_the_registry_has_and_steps_are_ollamas(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    steps = await pulled(tmp_path, f"{registry.host}/team/tiny")

    statuses = [step.status for step in steps]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    weights = blob(tmp_path, WEIGHTS)
    assert weights.read_bytes() == WEIGHTS
    last = [step for step in steps if step.status == f"pulling {weights.name[7:19]}"][-1]
    assert last.digest == weights.name.replace("-", ":", 1)
    assert (last.done_bytes, last.total_bytes) == (len(WEIGHTS), len(WEIGHTS))
    file = Library(tmp_path, {}).look_up(f"{registry.host}/team/tiny")
    assert file.path == weights
    assert file.manifest is not None
    assert json.loads(file.manifest.raw)["schemaVersion"] == 2
    check(tmp_path)
    assert leftovers(tmp_path) == []


async def test_what_is_there_is_not_fetched_again(registry: DockerRegistry, tmp_path: Path) -> None:
    await pulled(tmp_path, f"{registry.host}/team/tiny")
    async with CuttingProxy(registry.port).running() as proxy:
        await pulled(tmp_path, f"127.0.0.1:{proxy.port}/team/tiny")

    assert proxy.num_bytes < 10_000


@pytest.mark.parametrize("seed", range(3))
async def test_a_connection_cut_at_ten_random_points_costs_no_byte_twice(
    registry: DockerRegistry, tmp_path: Path, seed: int
) -> None:
    cuts = sorted(random.Random(seed).sample(range(3_000, len(WEIGHTS)), 10))
    async with CuttingProxy(registry.port, cuts).running() as proxy:
        await pulled(tmp_path, f"127.0.0.1:{proxy.port}/team/tiny")

    assert proxy.num_cuts == 10
    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    # Each cut costs headers, and what was in the connection's buffers.
    assert proxy.num_bytes < len(WEIGHTS) + 10 * 70_000
    check(tmp_path)


async def test_a_pull_that_was_given_up_is_gone_on_with(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    one_stream = {"num_streams": 1}
    for limit in (300_000, 1_000_000):
        async with CuttingProxy(registry.port, [limit] * 50).running() as proxy:
            with pytest.raises(Unavailable, match="the next pull goes on from there"):
                await pulled(tmp_path, f"127.0.0.1:{proxy.port}/team/tiny", **one_stream)
        assert not blob(tmp_path, WEIGHTS).exists()
        assert Library(tmp_path, {}).list() == []
    async with CuttingProxy(registry.port).running() as proxy:
        await pulled(tmp_path, f"127.0.0.1:{proxy.port}/team/tiny", **one_stream)

    assert proxy.num_bytes < len(WEIGHTS) - 1_000_000
    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    assert leftovers(tmp_path) == []


async def test_a_damaged_blob_is_thrown_away_and_the_model_is_not_there(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    weights = random.Random(2).randbytes(300_000)
    registry.put("team/damaged", "latest", {"model": weights})
    registry.damage(blob(tmp_path, weights).name.replace("-", ":", 1))

    with pytest.raises(Unavailable, match="was thrown away"):
        await pulled(tmp_path, f"{registry.host}/team/damaged")

    assert not blob(tmp_path, weights).exists()
    assert Library(tmp_path, {}).list() == []
    check(tmp_path)
    assert leftovers(tmp_path) == []


async def test_a_partial_file_whose_bytes_changed_is_begun_anew(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    async with CuttingProxy(registry.port, [900_000] * 50).running() as proxy:
        with pytest.raises(Unavailable):
            await pulled(tmp_path, f"127.0.0.1:{proxy.port}/team/tiny", num_streams=1)
    partial = tmp_path / "blobs" / f"{blob(tmp_path, WEIGHTS).name}-partial"
    with partial.open("r+b") as file:  # as if the machine had stopped
        file.write(bytes(1000))

    await pulled(tmp_path, f"{registry.host}/team/tiny")

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b'{"size_bytes":2000000,"tag":"","parts":[]}',
    b'{"size_bytes":2000000,"tag":"","parts":[[0,2000000,2000001]]}',
    b'{"size_bytes":2000000,"tag":"","parts":[[0,1000000,1000000],[999999,2000000,1000001]]}',
    b'{"size_bytes":2000000,"tag":"","parts":[[0,2000000,-5]]}',
])  # fmt: skip
async def test_a_state_that_makes_no_sense_is_none(
    registry: DockerRegistry, tmp_path: Path, state: bytes
) -> None:
    partial = tmp_path / "blobs" / f"{blob(tmp_path, WEIGHTS).name}-partial"
    partial.parent.mkdir()
    partial.write_bytes(b"x" * len(WEIGHTS))
    partial.with_name(f"{partial.name}.json").write_bytes(state)

    await pulled(tmp_path, f"{registry.host}/team/tiny")

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS


async def test_two_pulls_at_once_share_one_download(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    async with CuttingProxy(registry.port).running() as proxy:
        name = f"127.0.0.1:{proxy.port}/team/tiny"
        await asyncio.gather(*(pulled(tmp_path, name) for _ in range(3)))

    assert proxy.num_bytes < len(WEIGHTS) + 50_000
    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    assert leftovers(tmp_path) == []


async def test_who_watches_goes_on_when_the_first_is_cancelled(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    async with CuttingProxy(registry.port, hold_at=500_000).running() as proxy:
        name = f"127.0.0.1:{proxy.port}/team/tiny"
        first = asyncio.create_task(pulled(tmp_path, name, num_streams=1))
        await proxy.held.wait()
        second = asyncio.create_task(pulled(tmp_path, name))
        first.cancel()
        await asyncio.wait({first})
        proxy.release()
        await second

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    assert proxy.num_bytes < len(WEIGHTS) + 200_000
    assert leftovers(tmp_path) == []


async def test_a_cancelled_pull_leaves_nothing_half_named(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    for at in (0, 1_000, 50_000, 300_000, 700_000):
        async with CuttingProxy(registry.port, hold_at=at).running() as proxy:
            pull = asyncio.create_task(pulled(tmp_path, f"127.0.0.1:{proxy.port}/team/tiny"))
            await proxy.held.wait()
            pull.cancel()
            await asyncio.wait({pull})
        check(tmp_path)
        assert Library(tmp_path, {}).list() == []
        assert not list(tmp_path.glob("blobs/.pins/*"))

    await pulled(tmp_path, f"{registry.host}/team/tiny")
    assert leftovers(tmp_path) == []


PULL = """
import asyncio, sys; from pathlib import Path
from tests.engines.gguf.registry.pulling import pulled
asyncio.run(pulled(Path(sys.argv[1]), sys.argv[2], num_streams=2))
"""


async def test_a_pull_killed_in_the_middle_is_gone_on_with_by_the_next(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    weights = random.Random(3).randbytes(5_000_000)
    registry.put("team/big", "latest", {"model": weights})
    async with CuttingProxy(registry.port, hold_at=2_000_000).running() as proxy:
        name = f"127.0.0.1:{proxy.port}/team/big"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PULL, str(tmp_path), name
        )
        await proxy.held.wait()
        state = tmp_path / "blobs" / f"{blob(tmp_path, weights).name}-partial.json"
        async with asyncio.timeout(30):
            while not done_bytes_of(state):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        proxy.release()

        check(tmp_path)
        assert Library(tmp_path, {}).list() == []
        await pulled(tmp_path, name)

    assert proxy.num_bytes < len(weights) + 2_000_000
    assert blob(tmp_path, weights).read_bytes() == weights
    check(tmp_path)
    assert leftovers(tmp_path) == []


async def test_two_processes_share_one_download(registry: DockerRegistry, tmp_path: Path) -> None:
    async with CuttingProxy(registry.port).running() as proxy:
        name = f"127.0.0.1:{proxy.port}/team/tiny"
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", PULL, str(tmp_path), name)
            for _ in range(2)
        ]
        codes = [await process.wait() for process in processes]

    assert codes == [0, 0]
    assert proxy.num_bytes < len(WEIGHTS) + 50_000
    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS


async def test_a_name_that_is_not_there_is_told_apart(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotFound) as refused:
        await pulled(tmp_path, f"{registry.host}/team/tiny:no-such-tag")

    assert refused.value.message == (
        f"{registry.host} has no model '{registry.host}/team/tiny:no-such-tag'"
    )


async def test_a_model_that_is_deleted_while_it_is_pulled_again_keeps_its_blobs(
    registry: DockerRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/team/tiny"
    await pulled(tmp_path, name)
    async for step in pull_of(tmp_path, name).steps():
        if step.total_bytes == len(WEIGHTS):
            ModelFolder(tmp_path).remove(parse_name(name))

    assert blob(tmp_path, WEIGHTS).read_bytes() == WEIGHTS
    assert Library(tmp_path, {}).look_up(name).path == blob(tmp_path, WEIGHTS)


async def test_a_pushed_model_is_what_is_pulled(registry: DockerRegistry, tmp_path: Path) -> None:
    await pulled(tmp_path / "a", f"{registry.host}/team/tiny")
    folder = ModelFolder(tmp_path / "a")
    manifest = folder.read(parse_name(f"{registry.host}/team/tiny"))
    name = parse_name(f"{registry.host}/other/copy:v1")
    folder.write_manifest(name, manifest)

    async def pushed() -> list[str]:
        library = Library(tmp_path / "a", {})
        push = Push(library, name.display, credentials=Credentials({}), patience=QUICK.patience)
        return [step.status async for step in push.steps()]

    first, again = await pushed(), await pushed()
    await pulled(tmp_path / "b", name.display)

    assert (first[0], *first[-2:]) == ("retrieving manifest", "pushing manifest", "success")
    assert len(again) < len(first)  # the registry has the blobs
    assert ModelFolder(tmp_path / "b").read(name) == manifest
    assert blob(tmp_path / "b", WEIGHTS).read_bytes() == WEIGHTS


async def test_a_damaged_blob_is_not_pushed(registry: DockerRegistry, tmp_path: Path) -> None:
    await pulled(tmp_path, f"{registry.host}/team/tiny")
    name = parse_name(f"{registry.host}/other/damaged")
    ModelFolder(tmp_path).write_manifest(
        name, ModelFolder(tmp_path).read(parse_name(f"{registry.host}/team/tiny"))
    )
    blob(tmp_path, WEIGHTS).write_bytes(bytes(len(WEIGHTS)))
    push = Push(
        Library(tmp_path, {}), name.display, credentials=Credentials({}), patience=QUICK.patience
    )

    with pytest.raises(Unavailable, match="is not what its name says"):
        async for _ in push.steps():
            pass
