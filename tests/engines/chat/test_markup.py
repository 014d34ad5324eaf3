import pytest

from engines.chat.markup import MAX_BLANKS, beginning_of, blanks_after, blanks_before


@pytest.mark.parametrize(
    ("text", "held"),
    [("", 0), ("<", 1), ("a<tag", 4), ("a<tag>", 0), ("<ta<t", 2), ("<<", 1), ("tag>", 0)],
)
def test_only_a_suffix_that_begins_the_tag_counts(text: str, held: int):
    assert beginning_of("<tag>", text) == held


def test_a_beginning_before_the_start_does_not_count():
    assert beginning_of("<tag>", "ab<t", 3) == 0


def test_blanks_are_found_on_both_sides():
    assert blanks_before("ab \n<", 4) == 2
    assert blanks_before("ab \n<", 4, start=3) == 3
    assert blanks_after("ab \nc", 2) == 4


def test_no_more_than_the_bound_is_blank():
    text = " " * 1000

    assert blanks_before(text, 1000) == 1000 - MAX_BLANKS
