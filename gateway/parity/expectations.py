"""Does an answer keep what its prompt expects?"""

import json
import re
from collections.abc import Iterator

from gateway.parity.answer import Answer
from gateway.parity.excerpt import beginning
from gateway.parity.json_validity import canonical, problem_of
from gateway.parity.prompt_set import Expectation


def broken_expectations(expect: Expectation, answer: Answer) -> list[str]:
    """Everything that the answer is not; empty if it is as expected."""
    is_refused = answer.failure is not None and answer.failure.kind == "refused"
    if expect.refused is not None:
        if is_refused == expect.refused:
            return []
        return ["it was not refused" if expect.refused else "it was refused"]
    if answer.failure is not None:
        return [f"there is no answer: {answer.failure.message}"]
    return [*_of_text(expect, answer), *_of_tools(expect, answer)]


def _of_text(expect: Expectation, answer: Answer) -> Iterator[str]:
    said = beginning(answer.text)
    if expect.equals is not None and answer.text != expect.equals:
        yield f"the text is {said}, not {beginning(expect.equals)}"
    wanted = [expect.contains] if isinstance(expect.contains, str) else expect.contains
    for text in wanted:
        if text not in answer.text:
            yield f"{said} does not contain {beginning(text)}"
    if expect.matches is not None and re.search(expect.matches, answer.text) is None:
        yield f"{said} does not match {expect.matches}"
    if expect.json_schema is not None:
        problem = problem_of(answer.text, expect.json_schema)
        if problem:
            yield problem
    if expect.finish_reason not in (None, answer.finish_reason):
        yield f"finish_reason is {answer.finish_reason}, not {expect.finish_reason}"


def _of_tools(expect: Expectation, answer: Answer) -> Iterator[str]:
    if expect.tool is None and expect.arguments is None:
        return
    calls = [call for call in answer.tool_calls if expect.tool in (None, call.name)]
    if not calls:
        yield f"no call of {expect.tool or 'any tool'}"
    elif expect.arguments is not None:
        wanted = canonical(json.dumps(expect.arguments))
        if all(canonical(call.arguments) != wanted for call in calls):
            yield f"called with {beginning(calls[0].arguments)}, not {beginning(wanted)}"
