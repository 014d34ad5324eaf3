"""Asks a subject a workload's questions under a load, and keeps what happened.

Everything runs on one event loop. What the loop's own thread computed is
noted, so that a run in which the client was the bottleneck can be told.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from gateway.bench.load import AtOnce, Load, Rate, arrival_times
from gateway.bench.question import Answer, AskFailed, Conversation, Subject, Turn


class Failure(Struct, frozen=True):
    """Why a question got no whole answer."""

    kind: str
    message: str


class Sample(Struct, frozen=True, kw_only=True):
    """One question and what became of it."""

    conversation: int
    turn: int
    due: float  # when it was to be asked; all latencies count from here
    asked_at: float  # when it was
    max_tokens: int
    ignores_eos: bool
    answer: Answer | None
    failure: Failure | None = None


class Run(Struct, frozen=True, kw_only=True):
    """All answers of one round at one subject."""

    subject: str
    load: Load
    round: int
    seconds: float  # from the first question due to the last answer's end
    client_busy: float | None  # the part in which the client's thread computed; None: in-process
    num_unasked: int  # later turns of conversations that had failed
    samples: Sequence[Sample]

    @property
    def answered(self) -> list[tuple[Sample, Answer]]:
        """The samples that have an answer, with it."""
        return [(sample, sample.answer) for sample in self.samples if sample.answer is not None]

    @property
    def output_tokens(self) -> int:
        """Tokens of all whole answers."""
        return sum(answer.completion_tokens for _, answer in self.answered)

    @property
    def tokens_per_second(self) -> float:
        """Output tokens of all callers, over the wall time."""
        return self.output_tokens / self.seconds


async def drive(
    subject: Subject,
    conversations: Sequence[Conversation],
    load: Load,
    *,
    round: int = 0,
    on_answer: Callable[[], None] = lambda: None,
) -> Run:
    """Ask everything once."""
    driver = _Driver(subject, conversations, on_answer)
    computed = time.thread_time()
    since = time.perf_counter()
    if isinstance(load, AtOnce):
        await driver.in_turn(load)
    else:
        await driver.on_time(load, since, seed=round)
    seconds = time.perf_counter() - since
    return Run(
        subject=subject.name,
        load=load,
        round=round,
        seconds=seconds,
        client_busy=None if subject.shares_process else (time.thread_time() - computed) / seconds,
        num_unasked=sum(len(c.questions) for c in conversations) - len(driver.samples),
        samples=driver.samples,
    )


class _Driver:
    def __init__(
        self,
        subject: Subject,
        conversations: Sequence[Conversation],
        on_answer: Callable[[], None],
    ) -> None:
        self.samples: list[Sample] = []
        self._subject = subject
        self._conversations = conversations
        self._on_answer = on_answer

    async def in_turn(self, load: AtOnce) -> None:
        """A closed loop of callers."""
        waiting = iter(enumerate(self._conversations))
        async with asyncio.TaskGroup() as callers:
            for _ in range(min(load.num_callers, len(self._conversations))):
                callers.create_task(self._caller(waiting))

    async def on_time(self, load: Rate, since: float, *, seed: int) -> None:
        """An open loop; nothing waits for an earlier conversation."""
        times = arrival_times(load, len(self._conversations), seed=seed)
        async with asyncio.TaskGroup() as callers:
            for index, offset in enumerate(times):
                due = since + offset
                await _sleep_until(due)
                callers.create_task(self._talk(index, self._conversations[index], due))

    async def _caller(self, waiting: Iterator[tuple[int, Conversation]]) -> None:
        for index, conversation in waiting:
            await self._talk(index, conversation, time.perf_counter())

    async def _talk(self, index: int, conversation: Conversation, due: float) -> None:
        """Ask a conversation's questions; one that fails ends it."""
        history = [Turn("system", conversation.system)] if conversation.system else []
        for turn, question in enumerate(conversation.questions):
            asked_at = time.perf_counter()
            answer: Answer | None = None
            failure: Failure | None = None
            try:
                answer = await self._subject.ask(question, history)
            except AskFailed as error:
                failure = Failure(error.kind, error.message)
            self.samples.append(
                Sample(
                    conversation=index,
                    turn=turn,
                    due=due,
                    asked_at=asked_at,
                    max_tokens=question.max_tokens,
                    ignores_eos=question.ignore_eos,
                    answer=answer,
                    failure=failure,
                )
            )
            self._on_answer()
            if answer is None:
                return
            history = [*history, Turn("user", question.text), Turn("assistant", answer.text)]
            due = time.perf_counter()


async def _sleep_until(due: float) -> None:
    """Never early: a loop's timers are coarser than its clock, so they are asked again."""
    while (left := due - time.perf_counter()) > 0:  # noqa: ASYNC110 - no event tells the time
        await asyncio.sleep(left)
