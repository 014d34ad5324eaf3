"""Turns texts into vectors, several in one step, on the step thread.

A job's inputs are put into batches as large as the embedding context allows. While
answers are generated, every one of them waits for a batch: then one takes no longer
than a chunk of a prompt would, if its first input is that short, and the next one comes
when answers have had as long as it took.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.errors import EngineError, Unavailable
from engines.gguf.runner import Aborted, Runner, Shape
from engines.gguf.threads import Threads
from engines.gguf.time_share import TimeShare
from engines.outbox import Mailbox, Outbox

Vectors = npt.NDArray[np.float32]


@dataclass(eq=False, kw_only=True)
class EmbedJob:
    """Inputs to embed; each is at least one token and at most what the context allows."""

    inputs: Sequence[Sequence[int]]
    mailbox: Mailbox[Vectors]
    done: list[Vectors] = field(default_factory=list)
    num_done: int = 0


class Embedder:
    """The embedding jobs of one model, in the order they came."""

    def __init__(
        self,
        runner: Runner,
        shape: Shape,
        pooling: str,
        *,
        threads: Threads,
        outbox: Outbox[Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._share = TimeShare()
        self._rests_until = 0.0  # while answers run
        self._runner = runner
        self._threads = threads
        self._shape = shape
        self._pooling = pooling
        self._outbox = outbox
        self._jobs: deque[EmbedJob] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def current(self) -> EmbedJob | None:
        """The job that the next step works on."""
        return self._jobs[0] if self._jobs else None

    def add(self, job: EmbedJob) -> None:
        """Let a job wait for its turn."""
        self._jobs.append(job)

    def drop(self, job: EmbedJob) -> None:
        """Forget a job, whether or not it is still here."""
        if job in self._jobs:
            self._jobs.remove(job)

    def is_due(self, *, answers_run: bool) -> bool:
        """Whether a job waits for its turn, and answers have had theirs."""
        return bool(self._jobs) and not (answers_run and self._clock() < self._rests_until)

    def step(self, *, answers_run: bool) -> None:
        """Compute one batch of the first job."""
        began = self._clock()
        self._compute(self._jobs[0], answers_run=answers_run)
        ended = self._clock()
        self._rests_until = ended + (ended - began)

    def _compute(self, job: EmbedJob, *, answers_run: bool) -> None:
        room = self._shape.max_batch_tokens
        batch = self._next_batch(job, min(room, self._share.num_tokens) if answers_run else room)
        num_rows = sum(map(len, batch))
        self._runner.set_threads(self._threads.choose(num_rows, may_try=not answers_run))
        began = self._clock()
        try:
            vectors = self._runner.embed(batch, self._shape, self._pooling)
        except Aborted:
            self._runner.resume()
            return
        except EngineError as error:
            self._jobs.popleft()
            self._outbox.post(job.mailbox, error)
            return
        seconds = self._clock() - began
        self._threads.measured(num_rows, seconds)
        self._share.measured(num_rows, seconds)
        job.done.append(vectors)
        job.num_done += len(batch)
        if job.num_done == len(job.inputs):
            self._jobs.popleft()
            self._outbox.post(job.mailbox, np.concatenate(job.done))
        else:
            self._jobs.rotate(-1)  # a job of a thousand texts lets one of a single text pass

    def _next_batch(self, job: EmbedJob, room: int) -> list[Sequence[int]]:
        """As many of its next inputs as have room, and one whether or not it has."""
        batch: list[Sequence[int]] = []
        for tokens in job.inputs[job.num_done : job.num_done + self._shape.num_slots]:
            room -= len(tokens)
            if batch and room < 0:
                break
            batch.append(tokens)
        return batch

    def end_all(self, reason: BaseException) -> None:
        """End every job with `reason`."""
        for job in self._jobs:
            self._outbox.post(job.mailbox, reason)
        self._jobs.clear()


def normalized(vectors: Vectors) -> list[list[float]]:
    """The same directions with length one, which is what clients compare by."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise Unavailable("the model gave an embedding without a direction")
    return (vectors / lengths).tolist()
