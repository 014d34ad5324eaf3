from engines.protocol import TokenLogprob
from gateway.parity.text_difference import Margin, text_difference
from tests.gateway.parity.places import answer, scored


def test_the_same_text_differs_nowhere() -> None:
    assert text_difference(answer("one two"), answer("one two")) is None


def test_the_place_and_both_sides_are_shown() -> None:
    difference = text_difference(answer("the river rose"), answer("the river sank\n"))

    assert difference is not None
    assert difference.at == 10
    assert str(difference) == r"character 10, after ‘the river ’: ‘rose’ | ‘sank\n’"


def test_a_text_that_goes_on_differs_at_the_others_end() -> None:
    difference = text_difference(answer("one"), answer("one two"))

    assert str(difference) == "character 3, after ‘one’: the end | ‘ two’"


def test_texts_that_part_where_each_nearly_said_the_others_word_part_at_a_near_tie() -> None:
    one = answer("xa", logprobs=scored(("x", -0.1), ("a", -0.70, "b", -0.72)))
    other = answer("xb", logprobs=scored(("x", -0.1), ("b", -0.69, "a", -0.74)))

    difference = text_difference(one, other)

    assert difference is not None
    assert [margin and round(margin.nats, 3) for margin in difference.margins] == [0.02, 0.05]
    assert difference.is_near_tie(0.1)
    assert not difference.is_near_tie(0.03)


def test_where_one_side_was_sure_it_is_no_near_tie() -> None:
    one = answer("a", logprobs=scored(("a", -0.70, "b", -0.72)))
    other = answer("b", logprobs=scored(("b", -0.01, "a", -4.51)))

    difference = text_difference(one, other)

    assert difference is not None
    assert not difference.is_near_tie(0.1)


def test_where_a_constraint_chose_the_less_likely_it_is_no_near_tie() -> None:
    one = answer("a", logprobs=scored(("a", -3.0, "b", -0.5)))
    other = answer("b", logprobs=scored(("b", -0.5, "a", -0.55)))

    difference = text_difference(one, other)

    assert difference is not None
    assert not difference.is_near_tie(0.1)
    assert str(difference).endswith("; ahead by -2.500 | 0.050 nats")


def test_where_one_side_tells_no_alternatives_the_others_word_has_to_do() -> None:
    one = answer("a", logprobs=scored(("a", -0.70, "b", -0.72)))
    other = answer("b", logprobs=[TokenLogprob(b"b", -0.69)])

    difference = text_difference(one, other)

    assert difference is not None
    assert difference.margins[1] is None
    assert difference.is_near_tie(0.1)
    assert str(difference).endswith("; ahead by 0.020 | ? nats")


def test_a_rival_that_is_not_among_the_alternatives_was_at_least_so_far_behind() -> None:
    one = answer("a", logprobs=scored(("a", -0.1, "c", -2.1)))
    other = answer("b", logprobs=scored(("b", -0.5, "a", -0.51)))

    difference = text_difference(one, other)

    assert difference is not None
    assert difference.margins[0] == Margin(2.0, is_least=True)
    assert not difference.is_near_tie(5.0)
    assert str(difference).endswith("; ahead by over 2.000 | 0.010 nats")


def test_without_log_probabilities_nothing_is_called_a_near_tie() -> None:
    difference = text_difference(answer("a"), answer("b"))

    assert difference is not None
    assert not difference.is_near_tie(100.0)
