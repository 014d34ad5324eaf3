"""The one thread that owns a loaded model: it loads, steps and frees it.

Everyone else sends it messages. Each turn it takes in what arrived, computes
one step of answers and one batch of embeddings if there are any and it is their
turn, and wakes the event loop once with all that came of it. With nothing to do it
sleeps on its inbox.

`submit`, `embed`, `cancel` and `stop` may be called from the event loop and
never wait; everything with an underscore runs on the thread.
"""

import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import structlog

from engines.errors import EngineError, Unavailable
from engines.gguf.embedding import Embedder, EmbedJob
from engines.gguf.generation import Generation
from engines.gguf.layout import Layout
from engines.gguf.runner import Runner
from engines.gguf.sequence import Sequence
from engines.outbox import Mailbox, Outbox

log = structlog.get_logger()


class _Cancel(NamedTuple):
    what: Sequence | EmbedJob


class _Stop(NamedTuple):
    pass


_Message = Sequence | EmbedJob | _Cancel | _Stop


class StepLoop:
    """A model's thread. A stopped or failed one is not started again: open the model anew."""

    def __init__(
        self,
        name: str,
        *,
        load: Callable[[], Runner],
        layout: Callable[[Runner], Layout],
        outbox: Outbox[Any],
        opened: Mailbox[Runner],
    ) -> None:
        self._name = name
        self._load = load
        self._layout = layout
        self._outbox = outbox
        self._opened = opened
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"gguf-{name}", daemon=True)
        self._runner: Runner | None = None
        self._generation: Generation | None = None
        self._embedder: Embedder | None = None
        # Written by one thread each and read by the other; late by a step at worst.
        self.is_stopping = False
        self.has_ended = False
        self.num_waiting = 0
        self.cache_used = 0.0
        self.cache_busy = 0.0

    @property
    def num_running(self) -> int:
        """Sequences with a slot; read by any thread, and right once one of them was told of it."""
        generation = self._generation
        return len(generation.scheduler.running) if generation is not None else 0

    def start(self) -> None:
        """Begin to load; the `Runner`, or why there is none, is posted to `opened`."""
        self._thread.start()

    def submit(self, work: Sequence | EmbedJob) -> None:
        """Take in a request; from now on it belongs to the thread."""
        self._inbox.put(work)
        if self.has_ended:  # the thread may have emptied its inbox before this came
            work.mailbox.put(self._gone())

    def cancel(self, work: Sequence | EmbedJob) -> None:
        """Forget a request within this step; idempotent, and fine if it is over."""
        self._inbox.put(_Cancel(work))
        generation, embedder, runner = self._generation, self._embedder, self._runner
        if generation is None or embedder is None or runner is None:
            return
        if work is generation.interruptible or work is embedder.current:
            # Should that step have ended just now, the next one is aborted and done again.
            runner.abort()

    def stop(self) -> None:
        """End every stream with `Unavailable`, free the model, end the thread."""
        self.is_stopping = True
        self._inbox.put(_Stop())
        if (runner := self._runner) is not None:
            runner.abort()

    def join(self) -> None:
        """Wait until the thread has freed everything; blocks."""
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        reason: EngineError = self._gone()
        try:
            self._open()
            while self._take_in():
                self._turn()
            if self._generation is not None:
                self._generation.save_idle()
        except EngineError as error:
            reason = error
        # The thread would die silently, and every stream would wait for ever.
        except BaseException as error:
            log.exception("step_loop_failed", model=self._name)
            reason = Unavailable(f"model {self._name!r} failed: {error}")
        finally:
            self.has_ended = True
            self._end_all(reason)
            self._outbox.flush()
            if self._runner is not None:
                self._runner.close()

    def _open(self) -> None:
        try:
            self._runner = runner = self._load()
            layout = self._layout(runner)
            if layout.generation is not None:
                runner.open_cache(layout.generation)
                self._generation = Generation(runner, layout.generation, layout, self._outbox)
            self._embedder = Embedder(
                runner,
                layout.embedding,
                layout.pooling,
                threads=layout.threads,
                outbox=self._outbox,
            )
        except EngineError as error:
            self._outbox.post(self._opened, error)
            raise
        except BaseException as error:
            failure = Unavailable(f"model {self._name!r} could not be loaded: {error}")
            self._outbox.post(self._opened, failure)
            raise
        self._outbox.post(self._opened, runner)
        self._outbox.flush()

    def _take_in(self) -> bool:
        """Take in all messages, waiting for one if there is nothing to do; False to stop."""
        while True:
            must_wait = not self._has_work()
            if must_wait:
                self._note_health()
                self._outbox.flush()
            try:
                message = self._inbox.get(block=must_wait)
            except queue.Empty:
                return not self.is_stopping
            if isinstance(message, _Stop):
                return False
            if isinstance(message, _Cancel):
                self._drop(message.what)
            elif isinstance(message, EmbedJob):
                assert self._embedder is not None
                self._embedder.add(message)
            elif self._generation is None:
                failure = Unavailable(f"model {self._name!r} only embeds")
                self._outbox.post(message.mailbox, failure)
            else:
                self._generation.scheduler.add(message)

    def _has_work(self) -> bool:
        return bool(self._embedder) or (self._generation is not None and self._generation.has_work)

    def _drop(self, work: Sequence | EmbedJob) -> None:
        if isinstance(work, EmbedJob):
            if self._embedder is not None:
                self._embedder.drop(work)
        elif self._generation is not None:
            self._generation.drop(work)

    def _turn(self) -> None:
        if self._generation is not None and self._generation.has_work:
            self._generation.step()
        answers_run = self._generation is not None and bool(self._generation.scheduler.running)
        assert self._embedder is not None
        if self._embedder.is_due(answers_run=answers_run):
            self._outbox.flush()  # what answers gained need not wait for the batch
            self._embedder.step(answers_run=answers_run)
        self._note_health()
        # The next step of answers says when it is best; see `Generation.step`.
        if not answers_run and not self._outbox.flush():
            self.is_stopping = True  # the event loop is closed: nobody is there to answer

    def _note_health(self) -> None:
        if self._generation is not None:
            scheduler = self._generation.scheduler
            self.num_waiting = scheduler.num_waiting
            self.cache_used = scheduler.slots.cache_used
            self.cache_busy = scheduler.slots.cache_busy

    def _end_all(self, reason: EngineError) -> None:
        if self._generation is not None:
            self._generation.end_all(reason)
        if self._embedder is not None:
            self._embedder.end_all(reason)
        while True:
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                break
            if isinstance(message, Sequence | EmbedJob):
                self._outbox.post(message.mailbox, reason)
        self._note_health()

    def _gone(self) -> Unavailable:
        return Unavailable(f"model {self._name!r} was unloaded")
