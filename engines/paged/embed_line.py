"""Who waits for vectors of one model; inputs of several requests go in one step.

Lives on the event loop. The step itself is run by whoever owns the device: the
step thread, between two steps of answers, or a thread of its own for a model
that only embeds.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from math import isnan
from typing import Any

import structlog

from engines.errors import EngineError, EngineOverloaded, Unavailable
from engines.paged.embedder import Embedder
from engines.paged.failures import first_line, without_frames

log = structlog.get_logger()

Run = Callable[[Callable[[], Any]], "Future[Any]"]


class EmbedLine:
    """The inputs of one model, in the order they came."""

    def __init__(
        self,
        embedder: Embedder,
        run: Run,
        *,
        max_waiting: int,
        on_failure: Callable[[BaseException], object] = lambda _: None,
    ) -> None:
        """`on_failure` is called where the step runs, with what is no `EngineError`."""
        self._embedder = embedder
        self._run = run
        self._on_failure = on_failure
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[Sequence[int], asyncio.Future[list[float]]]] = deque()
        self._work: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Inputs that no step has."""
        return len(self._waiting)

    async def embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector of length one for each input. Raises any `EngineError`."""
        if self._waiting and len(self._waiting) + len(inputs) > self._max_waiting:
            raise EngineOverloaded(
                f"{len(self._waiting)} inputs wait to be embedded", retry_after=1.0
            )
        loop = asyncio.get_running_loop()
        vectors = [loop.create_future() for _ in inputs]
        self._waiting.extend(zip(inputs, vectors, strict=True))
        if self._work is None:
            self._work = loop.create_task(self._embed_all())
        try:
            return list(await asyncio.gather(*vectors))
        finally:
            for vector in vectors:
                vector.cancel()  # of those that nobody wants any more

    def close(self) -> None:
        """End all who wait with `Unavailable`."""
        while self._waiting:
            _, vector = self._waiting.popleft()
            _settle(vector, Unavailable("the model was unloaded"))

    async def _embed_all(self) -> None:
        while batch := self._next_batch():
            inputs = [tokens for tokens, _ in batch]
            try:
                vectors = await asyncio.wrap_future(self._run(lambda: self._embed(inputs)))  # noqa: B023
            # Whatever it is, those who wait for this batch must hear of it.
            except BaseException as error:  # noqa: BLE001
                for _, vector in batch:
                    _settle(vector, error)
                continue
            for (_, vector), numbers in zip(batch, vectors, strict=True):
                if isnan(numbers[0]):
                    _settle(vector, Unavailable("the model gave an embedding without a direction"))
                elif not vector.done():
                    vector.set_result(numbers)
        self._work = None

    def _embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        try:
            return self._embedder.embed(inputs).tolist()
        except EngineError:
            raise
        # Told without its frames, which hold what was being computed.
        except Exception as error:
            log.exception("embedding_failed")
            self._on_failure(error)
            reason = first_line(without_frames(error))
        raise Unavailable(f"embedding failed: {reason}")

    def _next_batch(self) -> list[tuple[Sequence[int], "asyncio.Future[list[float]]"]]:
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()  # given up
        num = next(iter(self._embedder.batches([tokens for tokens, _ in self._waiting])), None)
        if num is None:
            return []
        return [self._waiting.popleft() for _ in range(num.stop)]


def _settle(vector: "asyncio.Future[list[float]]", error: BaseException) -> None:
    if not vector.done():
        vector.set_exception(error)
