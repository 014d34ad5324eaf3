from gateway.parity.answer import CalledTool, Notes
from tests.fakes import FakeClock


def test_speed_is_told_from_the_first_output_on() -> None:
    clock = FakeClock()
    notes = Notes(clock)
    clock.advance(0.5)
    notes.text("a")
    clock.advance(1.0)
    notes.text("b")
    notes.completion_tokens = 21

    answer = notes.answer()

    assert (answer.first_output_seconds, answer.tokens_per_second) == (0.5, 20.0)


def test_an_answer_in_one_piece_has_no_speed() -> None:
    clock = FakeClock()
    notes = Notes(clock)
    clock.advance(0.5)
    notes.text("all of it")
    notes.completion_tokens = 21

    assert notes.answer().tokens_per_second is None
    assert Notes(clock).answer().first_output_seconds is None


def test_tool_calls_are_put_together_by_index() -> None:
    notes = Notes()
    notes.tool_call(1, "b", "")
    notes.tool_call(0, "a", '{"x"')
    notes.tool_call(1, None, "{}")
    notes.tool_call(0, None, ": 1}")

    assert notes.answer().tool_calls == [CalledTool("a", '{"x": 1}'), CalledTool("b", "{}")]
