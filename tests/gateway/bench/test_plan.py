from collections.abc import Sequence

import pytest

from gateway.bench.load import AtOnce, Rate
from gateway.bench.plan import Bound, Plan, carry_out
from gateway.bench.question import (
    Answer,
    AskFailed,
    Conversation,
    Question,
    SubjectUnusable,
    Turn,
)
from gateway.bench.roofline import Machine, ModelShape
from gateway.bench.workloads.fixed import Fixed
from tests.gateway.bench.answers import ScriptedSubject, answer

TINY = ModelShape(layers=1, hidden=8, heads=1, kv_heads=1, head_dim=8, intermediate=8, vocab=8)


class Told:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.num_answered = 0

    def began(self, what: str, num_questions: int) -> None:
        self.runs.append(what)

    def answered(self) -> None:
        self.num_answered += 1

    def ended(self) -> None:
        pass


def talkative(name: str, log: list[tuple[str, str]]) -> ScriptedSubject:
    """A subject that writes its name and the question into a log that several share."""

    def reply(question: Question, history: Sequence[Turn]) -> Answer:
        log.append((name, question.text))
        return answer(1.0, 2.0)

    return ScriptedSubject(reply, name=name)


def plan(**options: object) -> Plan:
    workload = Fixed(num_requests=3, max_tokens=100)
    defaults = {"workload": workload, "loads": [AtOnce(1)], "warmup": 0}
    return Plan(**defaults | options)  # type: ignore[arg-type]


async def test_rounds_alternate_and_the_first_changes() -> None:
    log: list[tuple[str, str]] = []
    subjects = [talkative(name, log) for name in ("a", "b")]

    results = await carry_out(plan(num_rounds=3), subjects, Told())

    assert "".join(name for name, _ in log[::3]) == "abbaab"
    assert [(result.subject, len(result.rounds)) for result in results] == [("a", 3), ("b", 3)]


async def test_subjects_get_the_same_questions_and_no_round_repeats_one() -> None:
    log: list[tuple[str, str]] = []
    subjects = [talkative(name, log) for name in ("a", "b")]

    await carry_out(plan(num_rounds=2, loads=[AtOnce(1), AtOnce(2)], warmup=2), subjects, Told())

    asked = {name: [text for who, text in log if who == name] for name in ("a", "b")}
    assert sorted(asked["a"]) == sorted(asked["b"])
    assert len(set(asked["a"])) == len(asked["a"]) == 2 * (2 + 2 * 3)


async def test_warm_up_is_short_counts_for_nothing_and_comes_first() -> None:
    subject = ScriptedSubject(lambda question, history: answer(1.0))
    told = Told()

    [result] = await carry_out(
        plan(workload=Fixed(num_requests=8, max_tokens=100), warmup=None, loads=[AtOnce(4)]),
        [subject],
        told,
    )

    assert [question.max_tokens for question, _ in subject.asked] == [16] * 4 + [100] * 8
    assert result.summary.answers == 8
    assert told.runs == ["scripted: warm-up", "scripted: 4 at once, round 1 of 1"]
    assert told.num_answered == 12


async def test_a_subject_that_answers_no_question_ends_the_benchmark_at_once() -> None:
    subject = ScriptedSubject(lambda question, history: AskFailed("connect", "nothing answers"))

    with pytest.raises(SubjectUnusable, match=r"scripted answered no question: nothing answers"):
        await carry_out(plan(warmup=2, num_rounds=50), [subject], Told())

    assert len(subject.asked) == 2


async def test_answers_in_company_are_held_against_the_same_ones_alone() -> None:
    seen: dict[str, int] = {}

    def reply(question: Question, history: Sequence[Turn]) -> Answer:
        seen[question.text] = seen.get(question.text, 0) + 1
        # The first question's text changes when it is asked again.
        changes = seen[question.text] == 2 and question.text == min(seen)
        return answer(*([1.0, 2.0] if changes else [1.0]))

    [result] = await carry_out(plan(checks_same_text=True), [ScriptedSubject(reply)], Told())

    assert result.same_text is not None
    assert result.same_text.compared == 3
    [difference] = result.same_text.differences
    assert (difference.alone, difference.together, difference.at) == ("word word ", "word ", 5)


async def test_the_roofline_is_the_least_time_over_the_time_it_took() -> None:
    machine = Machine(bytes_per_second=1e9, flops_per_second=1e30, source="test")
    bounds = {"scripted": Bound(TINY, machine)}
    subject = ScriptedSubject(lambda question, history: answer(1.0, tokens=4))

    [result] = await carry_out(plan(bounds=bounds), [subject], Told())
    [open_loop] = await carry_out(plan(bounds=bounds, loads=[Rate(1e5)]), [subject], Told())

    run = result.median_run
    # Three answers of four steps each read the weights; the first step reads no context.
    step = TINY.weights * 2
    contexts = sum(range(11, 14)) * TINY.kv_bytes_per_layer
    assert result.summary.roofline == pytest.approx(3 * (4 * step + contexts) / 1e9 / run.seconds)
    assert open_loop.summary.roofline is None


async def test_a_workload_of_conversations_warms_up_with_their_first_turns() -> None:
    class Talks:
        def conversations(self, place: int) -> list[Conversation]:
            questions = [Question(text=f"{place}.{turn}", max_tokens=5) for turn in range(2)]
            return [Conversation(system="kind", questions=questions)]

    subject = ScriptedSubject(lambda question, history: answer(1.0))

    await carry_out(plan(workload=Talks(), warmup=1), [subject], Told())

    assert [question.text for question, _ in subject.asked] == ["999.0", "0.0", "0.1"]
    assert all(history[0] == Turn("system", "kind") for _, history in subject.asked)
