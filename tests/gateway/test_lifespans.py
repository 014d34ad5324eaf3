import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars
from structlog.testing import capture_logs

from gateway import hookimpl
from gateway.lifespans import begin_lifespans, end_lifespans

GATEWAY = cast(Any, object())


class Noting:
    """Notes when it begins and ends, and in which task; fails where it is told to."""

    def __init__(self, name: str, notes: list[str], fails: str = "") -> None:
        self.name = name
        self.notes = notes
        self.fails = fails
        self.tasks: list[object] = []
        self.contexts: list[object] = []

    @hookimpl
    @asynccontextmanager
    async def lifespan(self, gateway: object) -> AsyncGenerator[None, None]:
        self.note("begin")
        yield
        self.note("end")

    def note(self, what: str) -> None:
        self.tasks.append(asyncio.current_task())
        self.contexts.append(get_contextvars())
        if self.fails == what:
            raise RuntimeError(f"{self.name} does not {what}")
        self.notes.append(f"{what} {self.name}")


class Without:
    """A plugin that has no lifespan."""


async def test_they_begin_in_order_and_end_in_reverse() -> None:
    notes: list[str] = []
    plugins = {"a": Noting("a", notes), "b": Without(), "c": Noting("c", notes)}

    begun = await begin_lifespans(plugins, GATEWAY)
    await end_lifespans(begun)

    assert notes == ["begin a", "begin c", "end c", "end a"]


async def test_each_ends_in_the_task_in_which_it_began() -> None:
    plugin = Noting("a", [])

    begun = await asyncio.create_task(begin_lifespans({"a": plugin}, GATEWAY))
    await asyncio.create_task(end_lifespans(begun))

    first, last = plugin.tasks
    assert first is last is not asyncio.current_task()


async def test_one_that_does_not_begin_takes_back_those_before_it() -> None:
    notes: list[str] = []
    plugins = {"a": Noting("a", notes), "b": Noting("b", notes, fails="begin")}

    with pytest.raises(RuntimeError, match="b does not begin"):
        await begin_lifespans(plugins, GATEWAY)

    assert notes == ["begin a", "end a"]


async def test_one_that_does_not_end_is_told_and_keeps_nobody() -> None:
    notes: list[str] = []
    plugins = {"a": Noting("a", notes), "b": Noting("b", notes, fails="end")}
    begun = await begin_lifespans(plugins, GATEWAY)

    with capture_logs() as logs:
        await end_lifespans(begun)

    assert notes[-1] == "end a"
    assert [(entry["event"], entry["plugin"]) for entry in logs] == [("plugin_end_failed", "b")]


async def test_what_they_log_does_not_name_the_call_that_reloaded() -> None:
    plugin = Noting("a", [])

    with bound_contextvars(call="req_1"):
        begun = await begin_lifespans({"a": plugin}, GATEWAY)
    await end_lifespans(begun)

    assert plugin.contexts == [{}, {}]
