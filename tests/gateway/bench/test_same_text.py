from gateway.bench.drive import Failure, Sample
from gateway.bench.question import Answer
from gateway.bench.same_text import compared
from tests.gateway.bench.answers import run, sample


def said(text: str, index: int = 0) -> Sample:
    return sample(Answer(text=text, arrivals=[1.0], finished_at=1.0), index=index)


def test_the_same_texts_in_another_order_are_the_same() -> None:
    found = compared(run(said("a", 0), said("b", 1)), run(said("b", 1), said("a", 0)))

    assert found.compared == 2
    assert list(found.differences) == []


def test_a_difference_is_shown_from_shortly_before_where_they_part() -> None:
    same = "the same words " * 20

    found = compared(run(said(same + "then this")), run(said(same + "then that")))

    [difference] = found.differences
    assert difference.at == len(same) + len("then th")
    assert difference.alone.endswith("then this")
    assert difference.together.endswith("then that")
    assert len(difference.alone) <= 60


def test_a_shorter_text_differs_where_it_ends() -> None:
    [difference] = compared(run(said("one two")), run(said("one"))).differences

    assert difference.at == 3


def test_an_answer_that_only_one_run_has_is_different_and_one_that_none_has_is_not() -> None:
    failed = [sample(Failure("timeout", "late"), index=index) for index in (0, 1)]

    found = compared(run(said("a", 0), failed[1]), run(failed[0], failed[1]))

    assert found.compared == 1
    [difference] = found.differences
    assert (difference.alone, difference.together) == ("a", "(failed)")
