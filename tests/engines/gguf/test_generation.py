import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines.gguf.generation import Generation
from engines.gguf.layout import Layout
from engines.gguf.runner import Runner, Shape
from engines.gguf.sequence import Sequence
from engines.gguf.threads import FixedThreads
from engines.gguf.time_share import MIN_PROMPT_SHARE
from engines.metrics import ModelRecorder
from engines.outbox import Mailbox, Outbox
from engines.protocol import Sampling
from tests.gguf_files import write_gguf

SHAPE = Shape(num_slots=2, context_tokens=512, pool_tokens=1024, exact=False, max_batch_tokens=256)


class NotedThreads(FixedThreads):
    """One thread, and a note of every step: its rows, and whether it may be tried with."""

    def __init__(self) -> None:
        super().__init__(1)
        self.steps: list[tuple[int, bool]] = []

    def choose(self, num_rows: int, *, may_try: bool = True) -> int:
        self.steps.append((num_rows, may_try))
        return super().choose(num_rows, may_try=may_try)


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(write_gguf(tmp_path / "random.gguf", layers=1, context_tokens=512))
    runner.open_cache(SHAPE)
    yield runner
    runner.close()


def asked(num_tokens: int) -> Sequence:
    return Sequence(
        tokens=[7] * num_tokens,
        max_tokens=400,
        mailbox=Mailbox(),
        sampling=Sampling(temperature=0.0, ignore_eos=True),
    )


async def test_the_first_prompt_beside_an_answer_is_begun_with_few_tokens_and_on_no_trial(
    runner: Runner,
) -> None:
    threads = NotedThreads()
    outbox: Outbox[Any] = Outbox(asyncio.get_running_loop())
    layout = Layout(SHAPE, SHAPE, "mean", threads, ModelRecorder(context_tokens=512))
    generation = Generation(runner, SHAPE, layout, outbox)
    generation.scheduler.add(asked(3))
    generation.step()
    generation.step()

    generation.scheduler.add(asked(200))
    generation.step()
    generation.end_all(RuntimeError("over"))

    # What a token of a prompt costs is not known before one was computed.
    assert threads.steps == [(3, True), (1, True), (1 + MIN_PROMPT_SHARE, False)]
