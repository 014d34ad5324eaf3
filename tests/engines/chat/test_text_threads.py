"""Who tokenizes a text follows from its length."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from engines.chat.text_threads import TextThreads
from engines.errors import Unavailable


def whose() -> list[int]:
    return [threading.get_ident()]


async def test_a_short_text_is_done_at_once_and_longer_ones_in_threads() -> None:
    texts = TextThreads("m")

    [here] = await texts.run("x" * 4000, whose)
    [there] = await texts.run("x" * 4001, whose)
    [own] = await texts.run("x" * (2**18 + 1), whose)
    [again] = await texts.run("x" * (2**18 + 1), whose)
    texts.close()

    assert here == threading.get_ident()
    assert len({here, there, own}) == 3
    assert own == again


async def test_very_long_texts_leave_the_threads_to_others() -> None:
    texts = TextThreads("m")
    let_go = threading.Event()

    def wait() -> list[int]:
        assert let_go.wait(60)
        return []

    # The event loop's threads are one here, as they are few anywhere.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    long = [asyncio.ensure_future(texts.run("x" * (2**18 + 1), wait)) for _ in range(3)]
    try:
        assert await texts.run("x" * 4001, whose)
        assert not any(one.done() for one in long)
    finally:
        let_go.set()
    texts.close()

    # Those that were taken are answered; no more are.
    assert await asyncio.gather(*long) == [[], [], []]
    with pytest.raises(Unavailable, match="unloaded"):
        await texts.run("x" * (2**18 + 1), wait)
