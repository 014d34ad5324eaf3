import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from engines.errors import Unavailable
from engines.protocol import Event, TextDelta
from gateway.api.openai.choices import side_by_side


class Source:
    """A stream that says what it is given, and knows whether it was closed."""

    def __init__(self, *texts: str, error: Exception | None = None, endless: bool = False) -> None:
        self.is_closed = False
        self._texts = texts
        self._error = error
        self._endless = endless

    async def stream(self) -> AsyncGenerator[Event, None]:
        try:
            for text in self._texts:
                yield TextDelta(text)
            if self._error is not None:
                raise self._error
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


@pytest.mark.parametrize("num_sources", [1, 3])
async def test_every_event_comes_with_its_choice(num_sources: int) -> None:
    sources = [Source(f"a{i}", f"b{i}") for i in range(num_sources)]

    found = [item async for item in side_by_side([source.stream() for source in sources])]

    for index in range(num_sources):
        own = [event.text for i, event in found if i == index and isinstance(event, TextDelta)]
        assert own == [f"a{index}", f"b{index}"]


async def test_a_fast_choice_does_not_wait_for_a_slow_one() -> None:
    slow, fast = Source("a", endless=True), Source("b", "c", "d")

    seen: list[str] = []
    async with aclosing(side_by_side([slow.stream(), fast.stream()])) as events:
        async for _, event in events:
            assert isinstance(event, TextDelta)
            seen.append(event.text)
            if len(seen) == 4:
                break

    assert sorted(seen) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("num_others", [0, 2])
async def test_a_failure_ends_all(num_others: int) -> None:
    broken = Source("a", error=Unavailable("the engine stopped"))
    others = [Source("b", endless=True) for _ in range(num_others)]

    streams = [source.stream() for source in [broken, *others]]
    with pytest.raises(Unavailable):
        async for _ in side_by_side(streams):
            pass

    # Nobody reads them any more, so whoever owns them can close them.
    for stream in streams:
        await stream.aclose()
    assert all(source.is_closed for source in others)


async def test_closing_stops_the_readers_at_once() -> None:
    sources = [Source("a", endless=True), Source("b", endless=True)]
    events = side_by_side([source.stream() for source in sources])
    await anext(events)
    num_before = len(asyncio.all_tasks())

    await events.aclose()

    assert len(asyncio.all_tasks()) == num_before - 2
    assert all(source.is_closed for source in sources)


async def test_a_reader_that_is_cancelled_takes_the_choices_with_it() -> None:
    sources = [Source("a", endless=True), Source("b", endless=True)]
    started = asyncio.Event()

    async def read() -> None:
        async with aclosing(side_by_side([source.stream() for source in sources])) as events:
            async for _ in events:
                started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert all(source.is_closed for source in sources)
