import pytest

from engines.errors import Overloaded
from engines.gguf.waiting_line import WaitingLine


def test_a_full_line_is_overloaded_and_says_when_to_come_back() -> None:
    line = WaitingLine(num_slots=2, max_waiting=4)
    line.served(3.0)
    for _ in range(4):
        line.join(num_running=2)

    with pytest.raises(Overloaded) as refusal:
        line.join(num_running=2)

    assert refusal.value.retry_after == pytest.approx(3.0)
    assert line.num_waiting == 4


def test_nobody_is_refused_while_there_are_free_slots() -> None:
    line = WaitingLine(num_slots=2, max_waiting=0)

    line.join(num_running=1)

    assert line.num_waiting == 1


def test_a_place_is_left_once() -> None:
    line = WaitingLine(num_slots=1, max_waiting=4)
    place = line.join(num_running=0)

    place.leave()
    place.leave()

    assert line.num_waiting == 0


def test_without_a_measurement_no_time_is_named() -> None:
    line = WaitingLine(num_slots=1, max_waiting=0)

    with pytest.raises(Overloaded) as refusal:
        line.join(num_running=1)

    assert refusal.value.retry_after is None
