"""A registry that does what a test tells it, and one at another host."""

import random
from collections.abc import AsyncGenerator

import pytest

from tests.engines.gguf.registry.fake_host import FakeHost

WEIGHTS = random.Random(1).randbytes(300_000)
MANIFEST = "/v2/team/tiny/manifests/latest"


@pytest.fixture
async def host() -> AsyncGenerator[FakeHost]:
    async with FakeHost().running() as running:
        running.put_model("team/tiny", {"model": WEIGHTS})
        yield running


@pytest.fixture
async def elsewhere() -> AsyncGenerator[FakeHost]:
    """Another host: another port of this machine."""
    async with FakeHost().running("localhost") as running:
        yield running


def weights_path(host: FakeHost) -> str:
    return host.blob_path("team/tiny", WEIGHTS)
