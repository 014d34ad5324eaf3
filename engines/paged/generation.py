"""One turn of answering: launch a step, read the one before it, hand out what it brought.

    schedule   plan step N+1, as if the tokens of step N were there
    forward    launch it; a GPU computes from here on
    read       wait for step N's tokens, give each to its sequence
    sample     launch step N+1's sampling, with the masks that those tokens led to

So the host works while the device does, and the device finds its next step in the
queue when it has done one. On a CPU the same order holds and nothing overlaps.

What goes wrong for one sequence ends that one; what goes wrong in the runner is
raised, and step_loop.py ends all. Everything here runs on the step thread.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from engines.chat.answer import Admitted, Ended, Generated, Item, PromptScored
from engines.errors import EngineError, Unavailable
from engines.outbox import Mailbox, Outbox
from engines.paged.failures import without_frames
from engines.paged.scheduler import Scheduler
from engines.paged.sequence import Sampled, Sequence, StepPlan, StepResult
from engines.protocol import FinishReason

Launched = Any  # what the runner remembers between `forward` and `sample`


class Pending(Protocol):
    """The results of a launched step."""

    def read(self) -> StepResult:
        """Wait until the device has them. Called once."""
        ...


class Runner(Protocol):
    """The device, as the step loop sees it; runner.py has the real one.

    Everything it launches is computed in the order of the calls. It must hold on to what
    it needs of a plan: between `forward` and `sample`, and after, a sequence of the plan
    may end and lose its blocks and its place.
    """

    def start(self) -> None:
        """Called first, on the thread that makes all other calls."""
        ...

    def begin(self, sequence: Sequence, /) -> None:
        """Set up the device's state at `sequence.place`, also when it runs again.

        Raises an `EngineError` that concerns this sequence alone before anything is changed.
        """
        ...

    def end(self, sequence: Sequence, place: int, /) -> None:
        """The sequence has lost `place`; a step that was launched may still write there."""
        ...

    def forward(self, plan: StepPlan, /) -> Launched:
        """Launch the copies of a plan, then one forward pass over all its rows.

        In each layer the keys and values of all rows are stored before any row attends:
        a row may read blocks that another row of the same plan fills. A row whose one
        token is not in `sequence.tokens` yet takes it from the device's state.
        """
        ...

    def sample(self, launched: Launched, masks: Mapping[int, Any], /) -> Pending:
        """Launch the sampling of a forward pass; `masks` are by row of its plan."""
        ...

    def close(self) -> None:
        """Forget what knows the runner itself, and would keep it alive; nothing follows."""
        ...


class Constraint(Protocol):
    """The grammar that an answer follows; see engines/chat/constraints.py."""

    @property
    def is_finished(self) -> bool:
        """Nothing can follow but the end."""
        ...

    def accept(self, token_id: int, /) -> None:
        """Move on by one token."""
        ...

    def mask(self) -> Any:
        """One bit for each token: may it come next."""
        ...


class Recipient(Protocol):
    """What the loop asks of `Sequence.payload`."""

    @property
    def mailbox(self) -> Mailbox[Item]:
        """Where the sequence's items go."""
        ...

    @property
    def constraint(self) -> Constraint | None:
        """The grammar of the answer, if it has one; the step thread moves it on."""
        ...


class Generation:
    """The answers of one engine: at most one step is launched and not read."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        outbox: Outbox[Any],
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._outbox = outbox
        self._in_flight: tuple[StepPlan, Pending] | None = None
        self._places: dict[Sequence, int] = {}  # of those that the runner knows
        self._constrained: set[Sequence] = set()  # those of them with a constraint

    @property
    def has_work(self) -> bool:
        """Whether a turn would do anything."""
        scheduler = self._scheduler
        return bool(self._in_flight or scheduler.num_running or scheduler.num_waiting)

    def start(self) -> None:
        """Everything else is called on this thread."""
        self._runner.start()

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for its turn, or tell its reader why it cannot."""
        try:
            self._scheduler.add(sequence)
        # It is in no line yet, so nobody else would ever tell its reader.
        except Exception as error:  # noqa: BLE001
            self._post(sequence, _failure(error))

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence wherever it is; idempotent. Nothing is posted."""
        self._scheduler.abort(sequence)
        self._leave(sequence)

    def turn(self) -> StepPlan | None:
        """Launch the next step and hand out the results of the last; returns the one read.

        Raises what the runner raises; then only `fail_all` may follow.
        """
        launched: Launched = None
        plan = self._scheduler.schedule()
        if plan is not None:
            misfits = self._seat(plan)
            launched = self._runner.forward(plan)
            # Not before: others of this plan may share the blocks that their rows fill.
            for sequence, error in misfits:
                self._fail(sequence, error)
        read = self._read()
        if plan is not None:
            pending = self._runner.sample(launched, self._masks(plan))
            self._in_flight = (plan, pending)
        return read

    def fail_all(self, reason: EngineError) -> None:
        """End every sequence with `reason`; the runner is not asked, it may be what failed.

        What the blocks hold is forgotten too: a step that failed may have left anything.
        """
        self._in_flight = None
        for sequence in list(self._scheduler):
            self._scheduler.abort(sequence)
            self._post(sequence, reason)
        self._places.clear()
        self._constrained.clear()
        self._scheduler.pool.forget()

    def close(self) -> None:
        """Free what the device has of all this, once nobody has the generation any more."""
        self._runner.close()

    def _seat(self, plan: StepPlan) -> list[tuple[Sequence, EngineError]]:
        """Tell the runner who lost and who got a place; returns those that it will not have."""
        misfits: list[tuple[Sequence, EngineError]] = []
        for sequence in plan.preempted:
            self._leave(sequence)
        for sequence in plan.admitted:
            try:
                self._runner.begin(sequence)
            # One request's sampling parameters must not end everyone's answer.
            except Exception as error:  # noqa: BLE001
                misfits.append((sequence, _failure(error)))
                continue
            self._places[sequence] = sequence.place
            recipient: Recipient = sequence.payload
            if recipient.constraint is not None:
                self._constrained.add(sequence)
            if sequence.num_admissions == 1:
                self._post(sequence, Admitted(sequence.num_cached))
        return misfits

    def _leave(self, sequence: Sequence) -> None:
        place = self._places.pop(sequence, None)
        if place is not None:
            self._constrained.discard(sequence)
            self._runner.end(sequence, place)

    def _masks(self, plan: StepPlan) -> dict[int, Any]:
        """The masks of the constrained rows, now that all tokens before theirs are known."""
        masks: dict[int, Any] = {}
        if not self._constrained:
            return masks
        for index, row in enumerate(plan.rows):
            if not row.samples or row.sequence not in self._constrained:
                continue
            try:
                masks[index] = row.sequence.payload.constraint.mask()
            # A grammar that turns out to be too expensive ends its own answer.
            except Exception as error:  # noqa: BLE001
                self._fail(row.sequence, error)
        return masks

    def _read(self) -> StepPlan | None:
        if self._in_flight is None:
            return None
        (plan, pending), self._in_flight = self._in_flight, None
        result = pending.read()
        for index, logprobs in result.prompt_logprobs.items():
            row = plan.rows[index]
            self._post(row.sequence, PromptScored(row.start, logprobs))
        logprob_of: dict[Sequence, Any] = {}
        if result.logprobs is not None:
            sampling = (row.sequence for row in plan.rows if row.samples)
            logprob_of = dict(zip(sampling, result.logprobs, strict=True))
        now = self._scheduler.clock()
        for sampled in self._scheduler.complete(plan, result.tokens):
            try:
                self._hand_out(sampled, logprob_of.get(sampled.sequence), now)
            # One sequence's constraint must not end everyone's answer.
            except Exception as error:  # noqa: BLE001
                self._fail(sampled.sequence, error)
        return plan

    def _hand_out(self, sampled: Sampled, logprob: Any, now: float) -> None:
        sequence, token, finish = sampled.sequence, sampled.token, sampled.finish
        if finish == "stop":
            self._end(sequence, Ended(FinishReason.STOP, sequence.timing(now), token))
            return
        self._post(sequence, Generated(token, logprob))
        if finish == "length":
            self._end(sequence, Ended(FinishReason.LENGTH, sequence.timing(now)))
            return
        constraint: Constraint | None = sequence.payload.constraint
        if constraint is not None:
            constraint.accept(token)
            if constraint.is_finished:
                self._end(sequence, Ended(FinishReason.STOP, sequence.timing(now)))

    def _end(self, sequence: Sequence, ended: Ended) -> None:
        self.drop(sequence)
        self._post(sequence, ended)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self.drop(sequence)
        self._post(sequence, _failure(error))

    def _post(self, sequence: Sequence, item: Item | EngineError) -> None:
        recipient: Recipient = sequence.payload
        self._outbox.post(recipient.mailbox, item)


def _failure(error: Exception) -> EngineError:
    without_frames(error)
    if isinstance(error, EngineError):
        return error
    return Unavailable(f"sampling failed: {error}")
