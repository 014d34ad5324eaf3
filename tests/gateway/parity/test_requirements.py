import pytest

from gateway.parity.aspects import Aspect
from gateway.parity.problems import CannotCompare
from gateway.parity.requirements import requirements_of


def test_by_default_everything_must_agree_but_log_probabilities() -> None:
    least = requirements_of([]).least

    assert {aspect for aspect, share in least.items() if share < 1} == {Aspect.LOGPROBS}


def test_shares_are_read_from_several_options_and_lists_the_last_one_winning() -> None:
    least = requirements_of(["all=0.5, text=0.9", "text=0.8,json=1"]).least

    assert (least[Aspect.TEXT], least[Aspect.JSON], least[Aspect.PROMPT]) == (0.8, 1.0, 0.5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("text", "'text' is not an aspect and a share from 0 to 1"),
        ("text=1.5", "'text=1.5' is not"),
        ("text=most", "'text=most' is not"),
        ("text=nan", "'text=nan' is not"),
        ("txt=0.9", "there is no aspect 'txt' \\(did you mean \"text\"\\?\\)"),
    ],
)
def test_what_is_no_requirement_is_named(text: str, problem: str) -> None:
    with pytest.raises(CannotCompare, match=problem):
        requirements_of([text])


def test_nine_of_ten_are_nine_tenths_and_eight_are_not() -> None:
    nine_tenths = requirements_of(["text=0.9"])

    assert nine_tenths.share(Aspect.TEXT, [True] * 9 + [False]).holds
    assert not nine_tenths.share(Aspect.TEXT, [True] * 8 + [False] * 2).holds


def test_what_could_not_be_compared_does_not_count() -> None:
    share = requirements_of([]).share(Aspect.TEXT, [True, None, None])

    assert (share.agreeing, share.compared, share.holds) == (1, 1, True)


def test_what_was_asked_for_and_could_never_be_compared_does_not_hold() -> None:
    assert requirements_of([]).share(Aspect.PROMPT, [None]).holds
    assert not requirements_of(["prompt=1"]).share(Aspect.PROMPT, [None]).holds
    assert requirements_of(["prompt=0"]).share(Aspect.PROMPT, [None]).holds
