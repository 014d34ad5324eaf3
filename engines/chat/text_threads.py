"""Decides where a text is tokenized, so that no text holds up those of others.

A short one is done on the event loop, before a thread would have woken. A longer
one goes to the threads that the process has for whatever blocks. One so long that
it takes seconds goes to a thread of its model's own: a few of them would take all
the others, which every request needs.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from engines.errors import Unavailable

# What a tokenizer does in a millisecond, which is not worth a thread's wake-up.
_MAX_INLINE_CHARS = 4000
_MAX_SHARED_CHARS = 2**18  # a fraction of a second


class TextThreads:
    """One for each loaded model; the calls that it is given may run in any thread."""

    def __init__(self, name: str) -> None:
        # Its thread begins with the first text that is so long.
        self._own = ThreadPoolExecutor(1, thread_name_prefix=f"texts-{name}")

    async def run(self, text: str, tokenize: Callable[[], list[int]]) -> list[int]:
        """What `tokenize` says of `text`. Raises `Unavailable` when closed."""
        if len(text) <= _MAX_INLINE_CHARS:
            return tokenize()
        if len(text) <= _MAX_SHARED_CHARS:
            return await asyncio.to_thread(tokenize)
        try:
            done = asyncio.get_running_loop().run_in_executor(self._own, tokenize)
        except RuntimeError:  # it was shut down
            raise Unavailable("the model was unloaded") from None
        return await done

    def close(self) -> None:
        """Take no more; what was taken is done to its end. Does not wait."""
        self._own.shutdown(wait=False)
