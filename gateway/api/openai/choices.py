"""Reads the streams of one call's choices side by side."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from engines.protocol import Event


async def side_by_side(
    streams: Sequence[AsyncGenerator[Event, None]],
) -> AsyncGenerator[tuple[int, Event], None]:
    """Every stream's events as they come, with the stream's index; one failure ends all.

    Close it to stop reading; the streams themselves belong to the call.
    """
    if len(streams) == 1:
        async for event in streams[0]:
            yield 0, event
        return
    inbox: asyncio.Queue[tuple[int, Event | BaseException | None]] = asyncio.Queue(len(streams))
    readers = [
        asyncio.create_task(_read(index, stream, inbox)) for index, stream in enumerate(streams)
    ]
    try:
        num_reading = len(readers)
        while num_reading:
            index, item = await inbox.get()
            if item is None:
                num_reading -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield index, item
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


async def _read(
    index: int,
    stream: AsyncGenerator[Event, None],
    inbox: "asyncio.Queue[tuple[int, Event | BaseException | None]]",
) -> None:
    try:
        async for event in stream:
            await inbox.put((index, event))
    except Exception as error:  # noqa: BLE001 - raised where the choices are read
        await inbox.put((index, error))
    else:
        await inbox.put((index, None))
