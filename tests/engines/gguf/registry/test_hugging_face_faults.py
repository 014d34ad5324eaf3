"""A server shaped like Hugging Face's that breaks off, lies, loops, and disks that fill up."""

import asyncio
import random
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiohttp import web

from engines.errors import EngineError, Unavailable
from engines.gguf.library import Library
from engines.gguf.registry.parts import done_bytes_of
from tests.engines.gguf.registry.cutting_proxy import CuttingProxy
from tests.engines.gguf.registry.fake_host import FakeHost, endless, ranged, redirect_to, silent
from tests.engines.gguf.registry.pulling import QUICK, blob, check, leftovers, pulled
from tests.engines.gguf.registry.small_disk import mounted
from tests.engines.gguf.registry.test_hugging_face import Hub
from tests.gguf_files import write_gguf

NAME = "hf.co/Org/Tiny-GGUF:Q8_0"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    return write_gguf(path, layers=1, width=256, feed_forward=512, extra_tokens=4000).read_bytes()


@pytest.fixture
async def hub(weights: bytes) -> AsyncGenerator[Hub]:
    async with FakeHost().running() as host:
        hub = Hub(host)
        hub.put("tiny-Q8_0.gguf", weights)
        yield hub


def weights_path(hub: Hub) -> str:
    return hub.path("tiny-Q8_0.gguf")


async def pulled_through(folder: Path, port: int, **how: object) -> None:
    """Pull from the hub behind a port of this machine."""
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_TOKEN": "hf_secret"}
    await pulled(folder, NAME, environment=environment, **how)


async def refused(hub: Hub, folder: Path, **how: object) -> str:
    with pytest.raises(EngineError) as error:
        await pulled(folder, NAME, environment=hub.environment, **how)
    check(folder)
    assert Library(folder, {}).list() == []
    return error.value.message


def port_of(hub: Hub) -> int:
    return int(hub.host.host.rpartition(":")[2])


@pytest.mark.parametrize("seed", range(2))
async def test_a_connection_cut_at_ten_random_points_costs_no_byte_twice(
    hub: Hub, tmp_path: Path, weights: bytes, seed: int
) -> None:
    cuts = sorted(random.Random(seed).sample(range(3_000, len(weights)), 10))
    async with CuttingProxy(port_of(hub), cuts).running() as proxy:
        await pulled_through(tmp_path, proxy.port)

    assert proxy.num_cuts == 10
    assert blob(tmp_path, weights).read_bytes() == weights
    assert proxy.num_bytes < len(weights) + 10 * 70_000
    assert leftovers(tmp_path) == []


async def test_a_file_that_is_cut_off_for_good_is_gone_on_with_by_the_next_pull(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    async with CuttingProxy(port_of(hub), [600_000] * 50).running() as proxy:
        with pytest.raises(Unavailable, match="the next pull goes on from there"):
            await pulled_through(tmp_path, proxy.port, num_streams=1)
    assert Library(tmp_path, {}).list() == []
    async with CuttingProxy(port_of(hub)).running() as proxy:
        await pulled_through(tmp_path, proxy.port, num_streams=1)

    assert proxy.num_bytes < len(weights) - 300_000
    assert blob(tmp_path, weights).read_bytes() == weights


async def test_two_pulls_at_once_share_one_download(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    async with CuttingProxy(port_of(hub)).running() as proxy:
        await asyncio.gather(*(pulled_through(tmp_path, proxy.port) for _ in range(3)))

    assert proxy.num_bytes < len(weights) + 50_000
    assert blob(tmp_path, weights).read_bytes() == weights
    assert leftovers(tmp_path) == []


PULL = """
import asyncio, sys; from pathlib import Path
from tests.engines.gguf.registry.test_hugging_face_faults import pulled_through
asyncio.run(pulled_through(Path(sys.argv[1]), int(sys.argv[2]), num_streams=2))
"""


async def test_a_pull_killed_in_the_middle_is_gone_on_with_by_the_next(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    async with CuttingProxy(port_of(hub), hold_at=len(weights) // 2).running() as proxy:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PULL, str(tmp_path), str(proxy.port)
        )
        await proxy.held.wait()
        state = tmp_path / "blobs" / f"{blob(tmp_path, weights).name}-partial.json"
        async with asyncio.timeout(60):
            while not done_bytes_of(state):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        proxy.release()
        check(tmp_path)
        assert Library(tmp_path, {}).list() == []

        await pulled_through(tmp_path, proxy.port)

    assert proxy.num_bytes < 1.6 * len(weights)
    assert blob(tmp_path, weights).read_bytes() == weights
    assert leftovers(tmp_path) == []


async def test_a_disk_that_fills_up_keeps_what_was_fetched(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    with mounted(tmp_path / "small", "1000k") as disk:
        # Somebody else fills the disk after it was looked at.
        how = {"free_bytes": lambda _: 10**9, "num_streams": 1}
        said = await refused(hub, disk.folder, **how)
        assert "is full; what was fetched is kept: make room and pull again" in said
        assert not blob(disk.folder, weights).exists()

        disk.grow("8m")
        before = len(hub.host.asked(weights_path(hub)))
        await pulled(disk.folder, NAME, environment=hub.environment, num_streams=1)
        assert blob(disk.folder, weights).read_bytes() == weights
        parts = -(-len(weights) // QUICK.part_bytes)
        assert len(hub.host.asked(weights_path(hub))) - before < parts
        check(disk.folder)


async def test_a_disk_without_room_is_noticed_before_a_byte_is_fetched(
    hub: Hub, tmp_path: Path
) -> None:
    said = await refused(hub, tmp_path, free_bytes=lambda _: 200_000)

    assert "make room, or choose another models folder" in said
    assert hub.host.asked(weights_path(hub)) == []


async def test_a_body_without_an_end_is_cut(hub: Hub, tmp_path: Path, weights: bytes) -> None:
    hub.host.faults[weights_path(hub)] = endless

    assert "sends more than it" in await refused(hub, tmp_path)
    assert all(p.stat().st_size <= len(weights) for p in (tmp_path / "blobs").glob("*-partial"))


async def test_a_listing_without_an_end_is_cut(hub: Hub, tmp_path: Path) -> None:
    hub.host.faults["/api/models/Org/Tiny-GGUF"] = endless

    assert "sends more than" in await refused(hub, tmp_path)


async def test_a_redirect_that_loops_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.host.faults[weights_path(hub)] = redirect_to(f"{hub.host.url}{weights_path(hub)}")

    assert "redirects more than 5 times" in await refused(hub, tmp_path)


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://x/y", "http://u:p@127.0.0.1/x", ""])
async def test_a_redirect_leads_to_http_only(hub: Hub, tmp_path: Path, place: str) -> None:
    hub.host.faults[weights_path(hub)] = redirect_to(place)

    assert "which is no URL" in await refused(hub, tmp_path)


async def test_a_storage_that_serves_something_else_is_found_out(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    async with FakeHost().running("localhost") as storage:
        storage.files["/signed"] = bytes(reversed(weights))
        hub.host.faults[weights_path(hub)] = redirect_to(f"{storage.url}/signed")

        assert "it was thrown away" in await refused(hub, tmp_path)

        assert not any("Authorization" in headers for _, headers in storage.requests)
    assert leftovers(tmp_path) == []


async def test_one_byte_that_is_wrong_is_found_out(
    hub: Hub, tmp_path: Path, weights: bytes
) -> None:
    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        spoilt = bytearray(content)
        spoilt[len(spoilt) // 2] ^= 1
        return ranged(request, bytes(spoilt))

    hub.host.faults[weights_path(hub)] = fault

    assert "it was thrown away" in await refused(hub, tmp_path)
    del hub.host.faults[weights_path(hub)]
    await pulled(tmp_path, NAME, environment=hub.environment)
    assert blob(tmp_path, weights).read_bytes() == weights


async def test_a_hub_that_falls_silent_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.host.faults[weights_path(hub)] = silent
    patience = QUICK.patience.__class__(
        stall_seconds=0.05, max_failures=2, first_delay_seconds=0.001, connect_seconds=5
    )

    assert "the next pull goes on from there" in await refused(hub, tmp_path, patience=patience)
