from gateway.parity.answer import Answer, CalledTool, Failure
from gateway.parity.aspects import Aspect, Finding
from gateway.parity.compare import Tolerance, compare
from gateway.parity.prompt_set import Expectation
from tests.gateway.parity.places import answer, prompt, scored

TOOLS = [{"type": "function", "function": {"name": "add"}}]


def found(
    one: Answer, other: Answer, *, tolerance: Tolerance | None = None, **body: object
) -> dict[Aspect, Finding]:
    return dict(compare(prompt(**body), one, other, tolerance or Tolerance()))  # type: ignore[arg-type]


def near_tie() -> tuple[Answer, Answer]:
    return (
        answer("a", logprobs=scored(("a", -0.70, "b", -0.72))),
        answer("b", logprobs=scored(("b", -0.69, "a", -0.74))),
    )


def test_a_near_tie_is_told_and_agrees_only_if_that_is_wanted() -> None:
    strict = found(*near_tie())[Aspect.TEXT]
    lenient = found(*near_tie(), tolerance=Tolerance(near_ties_agree=True))[Aspect.TEXT]
    narrow = found(
        *near_tie(), tolerance=Tolerance(near_ties_agree=True, near_tie_nats=0.01)
    )[Aspect.TEXT]  # fmt: skip

    assert (strict.agrees, strict.is_near_tie) == (False, True)
    assert strict.detail.startswith("a near-tie at character 0")
    assert (lenient.agrees, lenient.is_near_tie) == (True, True)
    assert (narrow.agrees, narrow.is_near_tie) == (False, False)


def test_lengths_are_compared_only_where_the_same_was_said() -> None:
    same = found(answer("a", completion_tokens=1), answer("a", completion_tokens=2))
    other = found(answer("a", completion_tokens=1), answer("b", completion_tokens=2))
    untold = found(answer("a"), answer("a", completion_tokens=2))

    assert same[Aspect.COMPLETION_TOKENS].detail == "1 | 2"
    assert other[Aspect.COMPLETION_TOKENS].agrees is None
    assert untold[Aspect.COMPLETION_TOKENS].agrees is None


def test_thinking_that_one_side_leaves_in_the_text_is_found_in_both() -> None:
    findings = found(answer("5", reasoning="2 + 3"), answer("<think>2 + 3</think>5"))

    assert findings[Aspect.REASONING].detail == (
        "character 0, after the beginning: ‘2 + 3’ | the end"
    )
    assert findings[Aspect.TEXT].agrees is False


def test_a_call_on_one_side_only_is_found() -> None:
    call = CalledTool("add", '{"x":1}')

    findings = found(answer(tool_calls=[call]), answer("1"), tools=TOOLS)

    assert findings[Aspect.TOOL_CALLS].detail == 'add({"x":1}) | no call'
    assert findings[Aspect.JSON].agrees is None


def test_tools_that_nobody_calls_agree_and_no_tools_are_nothing_to_compare() -> None:
    assert found(answer("1"), answer("1"), tools=TOOLS)[Aspect.TOOL_CALLS].agrees is True
    assert found(answer("1"), answer("1"))[Aspect.TOOL_CALLS].agrees is None


def test_two_empty_answers_agree() -> None:
    assert found(answer(), answer())[Aspect.TEXT].agrees is True


def test_json_that_is_invalid_everywhere_agrees_and_is_told() -> None:
    wanted = {"type": "json_object"}

    finding = found(answer("x"), answer("x"), response_format=wanted)[Aspect.JSON]

    assert finding.agrees
    assert finding.detail.startswith("not JSON: ")


def test_log_probabilities_are_compared_as_far_as_the_tokens_are_the_same() -> None:
    one = answer("ab", logprobs=scored(("a", -0.10), ("b", -0.2)))
    near = answer("ac", logprobs=scored(("a", -0.15), ("c", -9.0)))
    far = answer("ab", logprobs=scored(("a", -0.10), ("b", -0.9)))

    assert found(one, near)[Aspect.LOGPROBS] == Finding(
        agrees=True, detail="they differ by up to 0.0500 nats"
    )
    assert found(one, far)[Aspect.LOGPROBS].agrees is False


def test_log_probabilities_that_were_asked_for_and_come_from_one_side_only_are_found() -> None:
    one = answer("a", logprobs=scored(("a", -0.10)))

    asked = found(one, answer("a"), logprobs=True)[Aspect.LOGPROBS]

    assert (asked.agrees, asked.detail) == (False, "some | none")
    assert found(one, answer("a"))[Aspect.LOGPROBS].agrees is None


def test_vectors_agree_by_their_angle_and_not_their_length() -> None:
    one = Answer(vectors=[[1.0, 0.0], [0.0, 1.0]])

    longer = found(one, Answer(vectors=[[2.0, 0.0], [0.0, 0.5]]))[Aspect.EMBEDDINGS]
    turned = found(one, Answer(vectors=[[1.0, 0.0], [1.0, 1.0]]))[Aspect.EMBEDDINGS]
    cut = found(one, Answer(vectors=[[1.0], [1.0]]))[Aspect.EMBEDDINGS]
    none = found(one, Answer(vectors=[[0.0, 0.0], [0.0, 1.0]]))[Aspect.EMBEDDINGS]

    assert longer.agrees
    assert (turned.agrees, turned.detail) == (False, "cosine 0.70711")
    assert (cut.agrees, cut.detail) == (False, "dimensions [2, 2] | [1, 1]")
    assert none.agrees is False


def test_what_is_expected_must_hold_on_both_sides() -> None:
    expecting = prompt("2 + 3?")
    expecting = type(expecting)(
        name="sum", endpoint=expecting.endpoint, expect=Expectation(contains="5")
    )

    both = compare(expecting, answer("6"), answer("6"), Tolerance())[Aspect.EXPECT]
    one = compare(expecting, answer("5"), answer("6"), Tolerance())[Aspect.EXPECT]

    assert both.agrees is False
    assert one.detail == "as expected | ‘6’ does not contain ‘5’"


def test_after_a_failure_only_what_is_known_is_compared() -> None:
    failed = Answer(failure=Failure(kind="failed", code="timeout", message="too late"))

    findings = found(answer("a"), failed)

    assert {aspect for aspect, each in findings.items() if each.agrees is not None} == {
        Aspect.ANSWERED
    }
