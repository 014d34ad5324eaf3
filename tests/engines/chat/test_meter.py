import pytest

from engines.chat.meter import MAX_DEPTH, MAX_ITEMS, MAX_STEPS, Meter, TemplateTooExpensive


def test_steps_are_bounded():
    meter = Meter(max_chars=10)

    for _ in range(MAX_STEPS):
        meter.step()

    with pytest.raises(TemplateTooExpensive, match="steps"):
        meter.step()


def test_characters_are_bounded_in_sum():
    meter = Meter(max_chars=10)

    meter.make(6)

    with pytest.raises(TemplateTooExpensive, match="more than 10 characters"):
        meter.make(5)


def test_shared_parts_are_measured_as_often_as_they_appear():
    meter = Meter(max_chars=1000)

    assert meter.measure("abc") == 3
    assert meter.measure(["abc", {"k": ("abc", 1)}]) == 3 + 1 + 3 + 2 + 2 + 2
    shared: list[object] = ["x"]
    for _ in range(40):
        shared = [shared, shared]
    with pytest.raises(TemplateTooExpensive, match="too large"):
        meter.measure(shared)


def test_long_lists_are_refused_before_they_are_walked():
    with pytest.raises(TemplateTooExpensive):
        Meter(max_chars=10).measure([None] * (MAX_ITEMS + 1))


def test_deep_structures_are_refused_at_a_depth_that_no_request_has():
    nested: list[object] = []
    for _ in range(MAX_DEPTH):
        nested = [nested]

    assert Meter(max_chars=1000).measure(nested) == MAX_DEPTH
    with pytest.raises(RecursionError):
        Meter(max_chars=1000).measure([nested])


def test_what_is_measured_counts_as_time_spent():
    meter = Meter(max_chars=10, max_seconds=0)

    meter.measure([None] * 9_000)
    with pytest.raises(TemplateTooExpensive, match="more than 0 seconds"):
        meter.measure([None] * 9_000)


def test_items_are_indented_by_the_levels_above_them():
    assert Meter(max_chars=10).size(["a", ["b", "c"]]).indents == 2 * 1 + 2 * 2
