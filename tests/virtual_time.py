"""Runs asyncio code whose seconds pass as fast as nothing is left to do.

`asyncio.sleep`, time-outs and `loop.time` follow a clock that jumps to the next thing that
is due. So hours of traffic take seconds, and come out the same on a busy machine.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits. For code that opens no sockets and starts no threads."""

    def __init__(self) -> None:
        self._now = 1_000.0
        super().__init__()
        self._selector = _JumpingSelector(self._selector, self)

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _JumpingSelector:
    """A selector that lets time jump where the real one would wait."""

    def __init__(self, selector: Any, loop: VirtualTimeLoop) -> None:
        self._selector = selector
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        found = self._selector.select(0)
        if not found:
            if timeout is None:
                raise RuntimeError("everybody waits and nothing is due: a deadlock")
            self._loop.jump(max(0.0, timeout))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


def run_in_virtual_time(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """What `main()` returns, on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())
