"""How embeddings share a model's thread with its answers, by a clock that steps move."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.errors import Unavailable
from engines.gguf.embedding import Embedder, EmbedJob
from engines.gguf.runner import Shape
from engines.gguf.threads import FixedThreads
from engines.gguf.time_share import MIN_PROMPT_SHARE, PROMPT_SHARE_SECONDS
from engines.outbox import Mailbox, Outbox
from engines.protocol import EmbedRequest
from tests.engines.gguf.random_model import asking, engine_of
from tests.gguf_files import write_gguf

SHAPE = Shape(
    num_slots=16, context_tokens=2048, pool_tokens=2048, exact=False, max_batch_tokens=2048
)
SECONDS_PER_TOKEN = 1 / 1024
SHARE = int(PROMPT_SHARE_SECONDS / SECONDS_PER_TOKEN)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowRunner:
    """Takes as long for each token and gives its text's length for a vector."""

    def __init__(self, clock: Clock) -> None:
        self.batches: list[list[int]] = []
        self.failure: Unavailable | None = None
        self._clock = clock

    def set_threads(self, num_threads: int) -> None:
        assert num_threads == 1

    def embed(self, inputs: Sequence[Sequence[int]], shape: Shape, pooling: str) -> Any:
        lengths = [len(tokens) for tokens in inputs]
        assert sum(lengths) <= shape.max_batch_tokens
        self._clock.now += sum(lengths) * SECONDS_PER_TOKEN
        if self.failure is not None:
            raise self.failure
        self.batches.append(lengths)
        return np.array([[length] for length in lengths], np.float32)


class Thread:
    """A model's thread: an embedder, and answers of which a step takes as long as ten tokens."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.runner = SlowRunner(self.clock)
        self.outbox: Outbox[Any] = Outbox(asyncio.get_running_loop())
        self.embedder = Embedder(
            self.runner,  # type: ignore[arg-type]
            SHAPE,
            "mean",
            threads=FixedThreads(1),
            outbox=self.outbox,
            clock=self.clock,
        )

    def asks(self, *lengths: int) -> Mailbox[Any]:
        mailbox: Mailbox[Any] = Mailbox()
        self.embedder.add(EmbedJob(inputs=[[7] * length for length in lengths], mailbox=mailbox))
        return mailbox

    def turns(self, *, answers_run: bool) -> list[list[int]]:
        """The batches that are computed until all is done, each after so many steps of answers."""
        self.num_steps: list[int] = []
        steps = 0
        while self.embedder:
            if answers_run:
                self.clock.now += 10 * SECONDS_PER_TOKEN
                steps += 1
            if self.embedder.is_due(answers_run=answers_run):
                self.embedder.step(answers_run=answers_run)
                self.num_steps.append(steps)
                steps = 0
        return self.runner.batches


async def test_with_no_answers_batches_are_as_large_as_the_context() -> None:
    thread = Thread()
    thread.asks(*[300] * 12)

    assert thread.turns(answers_run=False) == [[300] * 6, [300] * 6]


async def test_beside_answers_a_batch_takes_no_longer_than_a_chunk_of_a_prompt() -> None:
    thread = Thread()
    thread.asks(200)
    thread.turns(answers_run=False)  # what a token costs is known from here on
    thread.asks(*[SHARE // 4] * 9)

    batches = thread.turns(answers_run=True)[1:]

    assert batches == [[SHARE // 4] * 4, [SHARE // 4] * 4, [SHARE // 4]]


async def test_before_it_is_known_what_a_token_costs_a_batch_beside_answers_is_small() -> None:
    thread = Thread()
    thread.asks(*[MIN_PROMPT_SHARE // 2] * 4, 5)

    first, *others = thread.turns(answers_run=True)

    assert first == [MIN_PROMPT_SHARE // 2] * 2
    assert others == [[MIN_PROMPT_SHARE // 2] * 2 + [5]]


async def test_a_text_longer_than_the_share_is_computed_alone() -> None:
    thread = Thread()
    thread.asks(200)
    thread.turns(answers_run=False)
    thread.asks(10, 1401, 1401, 10)

    batches = thread.turns(answers_run=True)[1:]

    assert batches == [[10], [1401], [1401], [10]]


async def test_answers_have_as_long_as_a_batch_took_before_the_next_one() -> None:
    thread = Thread()
    thread.asks(1400, 1000, 60)

    thread.turns(answers_run=True)

    assert thread.num_steps == [1, 140, 100]


async def test_who_waits_for_answers_waits_no_longer_than_there_are_any() -> None:
    thread = Thread()
    thread.asks(1400, 1000)
    thread.embedder.step(answers_run=True)

    assert not thread.embedder.is_due(answers_run=True)
    assert thread.embedder.is_due(answers_run=False)


async def test_answers_have_their_turn_after_a_batch_that_failed_too() -> None:
    thread = Thread()
    thread.runner.failure = Unavailable("no memory")
    mailbox = thread.asks(1400)
    thread.asks(5)

    thread.embedder.step(answers_run=True)
    thread.outbox.flush()

    with pytest.raises(Unavailable, match="no memory"):
        await mailbox.get()
    assert not thread.embedder.is_due(answers_run=True)


async def test_vectors_come_in_the_order_of_the_texts_however_they_were_batched() -> None:
    thread = Thread()
    lengths = [30, 5, 700, 16, 16, 90, 1]
    mailbox = thread.asks(*lengths)
    other = thread.asks(3)

    thread.turns(answers_run=True)
    thread.outbox.flush()

    assert (await mailbox.get())[:, 0].tolist() == lengths
    assert (await other.get())[:, 0].tolist() == [3]


async def test_a_models_thread_says_whether_answers_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bool] = []
    step = Embedder.step

    def noting(self: Embedder, *, answers_run: bool) -> None:
        said.append(answers_run)
        step(self, answers_run=answers_run)

    monkeypatch.setattr(Embedder, "step", noting)
    write_gguf(tmp_path / "random.gguf", layers=1, context_tokens=8192)
    embedding = EmbedRequest(id="1", model="random", inputs=["hello"])
    async with engine_of(tmp_path) as engine:
        await engine.embed(embedding)
        async with aclosing(engine.generate(asking(max_tokens=8000))) as events:
            await anext(events)
            await engine.embed(embedding)

    assert said == [False, True]
