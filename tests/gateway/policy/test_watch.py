import asyncio
from pathlib import Path

import pytest

from gateway.policy.files import read_files
from gateway.policy.watch import PolicyWatch


class Looks:
    """A sleep that lets the watch look once for each `next`."""

    def __init__(self) -> None:
        self._waiting = asyncio.Event()
        self._go = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self._waiting.set()
        await self._go.wait()
        self._go.clear()

    async def next(self) -> None:
        """Let one look happen, and return when it is over."""
        await self._waiting.wait()
        self._waiting.clear()
        self._go.set()
        await self._waiting.wait()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "gateway.toml").write_text("plugins = []")
    return tmp_path


async def test_a_change_counts_when_two_looks_saw_the_same_and_once(directory: Path) -> None:
    told: list[int] = []
    looks = Looks()

    async def on_change() -> None:
        told.append(1)

    watch = PolicyWatch(directory, 1.0, on_change=on_change, sleep=looks)
    async with watch.running(read_files(directory).digest):
        await looks.next()
        (directory / "gateway.toml").write_text("plugins = [")
        await looks.next()
        (directory / "gateway.toml").write_text('plugins = ["routing"]')
        await looks.next()
        assert told == []
        await looks.next()
        assert told == [1]
        await looks.next()
        assert told == [1]


async def test_a_directory_that_is_gone_and_comes_back_is_no_reason_to_fall_over(
    directory: Path,
) -> None:
    told: list[int] = []
    looks = Looks()

    async def on_change() -> None:
        told.append(1)

    watch = PolicyWatch(directory, 1.0, on_change=on_change, sleep=looks)
    async with watch.running(read_files(directory).digest):
        away = directory.rename(directory.with_name("away"))
        await looks.next()
        await looks.next()
        away.rename(directory)
        await looks.next()
        await looks.next()

    assert told == [1, 1]


async def test_without_a_period_nobody_looks(directory: Path) -> None:
    async def fail() -> None:
        raise AssertionError

    watch = PolicyWatch(directory, 0.0, on_change=fail)
    async with watch.running(""):
        assert [task.get_name() for task in asyncio.all_tasks()].count("watch") == 0
        assert len(asyncio.all_tasks()) == 1
