"""Runs a whole benchmark: every load, in rounds that alternate between the subjects.

A machine drifts more in an hour than most servers differ, so two subjects are
measured in turn within one round, and the one that goes first changes from
round to round. All subjects of a round get the same questions; every other
round and load gets its own, so that no cache of an earlier one helps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

from gateway.bench.drive import Run, drive
from gateway.bench.load import AtOnce, Load
from gateway.bench.question import Conversation, Question, Subject, SubjectUnusable
from gateway.bench.roofline import Machine, ModelShape, Work, ideal_seconds
from gateway.bench.same_text import Comparison, compared
from gateway.bench.summary import Goal, Summary, median_of, summary_of
from gateway.bench.workloads import Workload

WARMUP_TOKENS = 16  # enough for every kind of step to have happened once
MAX_WARMUP = 32
_PLACES_PER_LOAD = 1_000


class Watcher(Protocol):
    """Is told how the plan goes on."""

    def began(self, what: str, num_questions: int) -> None:
        """A run begins."""
        ...

    def answered(self) -> None:
        """One more question of it was answered, or failed."""
        ...

    def ended(self) -> None:
        """The run is over."""
        ...


class Bound(Struct, frozen=True):
    """What a subject's share of the roofline is computed from."""

    shape: ModelShape
    machine: Machine


class Plan(Struct, frozen=True, kw_only=True):
    """What to measure."""

    workload: Workload
    loads: Sequence[Load]
    num_rounds: int = 1
    warmup: int | None = None  # questions before each load; None: as many as at once, up to 32
    goal: Goal | None = None
    checks_same_text: bool = False
    bounds: Mapping[str, Bound] = {}  # by subject


class Result(Struct, frozen=True, kw_only=True):
    """One load at one subject: the median round, and all of them."""

    subject: str
    load: str
    summary: Summary
    rounds: Sequence[Summary]
    median_run: Run  # what `summary` is of
    same_text: Comparison | None = None  # None: not checked


async def carry_out(plan: Plan, subjects: Sequence[Subject], watcher: Watcher) -> list[Result]:
    """Measure everything. Raises `SubjectUnusable` when a subject answers no question at all."""
    results: list[Result] = []
    for number, load in enumerate(plan.loads):
        place = number * _PLACES_PER_LOAD
        await _warm_up(plan, subjects, load, place, watcher)
        runs: dict[str, list[Run]] = {subject.name: [] for subject in subjects}
        for nth in range(plan.num_rounds):
            conversations = plan.workload.conversations(place + nth)
            for subject in subjects if nth % 2 == 0 else list(reversed(subjects)):
                what = f"{subject.name}: {load}, round {nth + 1} of {plan.num_rounds}"
                with _Watched(watcher, what, conversations) as on_answer:
                    run = await drive(subject, conversations, load, round=nth, on_answer=on_answer)
                runs[subject.name].append(run)
        for subject in subjects:
            result = _result(plan, runs[subject.name])
            if plan.checks_same_text:
                result = await _checked(plan, subject, place, result, runs[subject.name], watcher)
            results.append(result)
    return results


async def _warm_up(
    plan: Plan, subjects: Sequence[Subject], load: Load, place: int, watcher: Watcher
) -> None:
    """Ask short questions that count for nothing; a subject that fails them all is no use."""
    wanted = plan.warmup
    if wanted is None:
        wanted = min(load.num_callers, MAX_WARMUP) if isinstance(load, AtOnce) else 4
    if wanted == 0:
        return
    # No round's place: a prompt that was asked here must not be cached there.
    conversations = [
        Conversation(system=conversation.system, questions=[_short(conversation)])
        for conversation in plan.workload.conversations(place + _PLACES_PER_LOAD - 1)[:wanted]
    ]
    for subject in subjects:
        with _Watched(watcher, f"{subject.name}: warm-up", conversations) as on_answer:
            run = await drive(subject, conversations, AtOnce(wanted), on_answer=on_answer)
        failures = [sample.failure for sample in run.samples if sample.failure is not None]
        if len(failures) == len(run.samples):
            raise SubjectUnusable(
                f"{subject.name} answered no question: {failures[0].message} ({failures[0].kind})"
            )


def _short(conversation: Conversation) -> Question:
    question = conversation.questions[0]
    return msgspec.structs.replace(question, max_tokens=min(question.max_tokens, WARMUP_TOKENS))


def _result(plan: Plan, runs: Sequence[Run]) -> Result:
    summaries = [
        summary_of(run, goal=plan.goal, roofline=_roofline(plan.bounds.get(run.subject), run))
        for run in runs
    ]
    middle = median_of(summaries)
    return Result(
        subject=middle.subject,
        load=middle.load,
        summary=middle,
        rounds=summaries,
        median_run=runs[summaries.index(middle)],
    )


def _roofline(bound: Bound | None, run: Run) -> float | None:
    """The least time for what was answered, over the time it took.

    An open loop waits for its questions, so its time says nothing of the machine.
    """
    if bound is None or not isinstance(run.load, AtOnce) or not run.answered:
        return None
    in_order = sorted(run.answered, key=lambda pair: pair[0].asked_at)
    works = [
        Work(answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens)
        for _, answer in in_order
    ]
    least = ideal_seconds(works, bound.shape, bound.machine, at_once=run.load.num_callers)
    return least / run.seconds


async def _checked(
    plan: Plan,
    subject: Subject,
    place: int,
    result: Result,
    runs: Sequence[Run],
    watcher: Watcher,
) -> Result:
    """The result with the answers of its first round compared with the same ones alone."""
    conversations = plan.workload.conversations(place)
    with _Watched(watcher, f"{subject.name}: one by one", conversations) as on_answer:
        alone = await drive(subject, conversations, AtOnce(1), on_answer=on_answer)
    return msgspec.structs.replace(result, same_text=compared(alone, runs[0]))


class _Watched:
    """Tells a watcher of one run."""

    def __init__(self, watcher: Watcher, what: str, conversations: Sequence[Conversation]) -> None:
        self._watcher = watcher
        self._what = what
        self._num_questions = sum(len(conversation.questions) for conversation in conversations)

    def __enter__(self) -> Callable[[], None]:
        self._watcher.began(self._what, self._num_questions)
        return self._watcher.answered

    def __exit__(self, *_: object) -> None:
        self._watcher.ended()
