import pytest

from gateway.parity.answer import CalledTool, Failure
from gateway.parity.expectations import broken_expectations
from gateway.parity.prompt_set import Expectation
from tests.gateway.parity.places import answer

CALL = CalledTool("add", '{"y": 2, "x": 1.0}')


@pytest.mark.parametrize(
    ("expect", "broken"),
    [
        (Expectation(equals="the answer is 5"), []),
        (Expectation(equals="5"), ["the text is ‘the answer is 5’, not ‘5’"]),
        (Expectation(contains="5"), []),
        (Expectation(contains=["5", "6"]), ["‘the answer is 5’ does not contain ‘6’"]),
        (Expectation(matches=r"\d$"), []),
        (Expectation(matches=r"^\d"), [r"‘the answer is 5’ does not match ^\d"]),
        (Expectation(finish_reason="stop"), []),
        (Expectation(finish_reason="length"), ["finish_reason is stop, not length"]),
        (Expectation(tool="add", arguments={"x": 1, "y": 2}), []),
        (Expectation(arguments={"x": 1}), ['called with ‘{"y": 2, "x": 1.0}’, not ‘{"x":1}’']),
        (Expectation(tool="subtract"), ["no call of subtract"]),
        (Expectation(refused=False), []),
        (Expectation(refused=True), ["it was not refused"]),
    ],
)
def test_what_an_answer_is_not_is_told(expect: Expectation, broken: list[str]) -> None:
    assert broken_expectations(expect, answer("the answer is 5", tool_calls=[CALL])) == broken


def test_json_of_a_schema_may_be_expected_where_none_was_asked_for() -> None:
    expect = Expectation(json_schema={"type": "integer"})

    assert broken_expectations(expect, answer("5")) == []
    assert broken_expectations(expect, answer("5.5")) == ["$: 5.5 is not of type 'integer'"]


def test_a_refusal_is_as_expected_only_if_it_was() -> None:
    refused = answer(failure=Failure(kind="refused", code="unsupported", message="no tools"))
    failed = answer(failure=Failure(kind="failed", code="unavailable", message="down"))

    assert broken_expectations(Expectation(refused=True), refused) == []
    assert broken_expectations(Expectation(refused=True), failed) == ["it was not refused"]
    assert broken_expectations(Expectation(contains="x"), failed) == ["there is no answer: down"]
