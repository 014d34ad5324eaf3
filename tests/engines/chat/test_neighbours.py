"""Neighbouring messages of one role, in Python and as a filter of the sandbox."""

from typing import Any

import pytest

from engines.chat.neighbours import neighbours_joined
from engines.chat.template import ChatTemplate
from engines.errors import EngineError
from engines.protocol import Message, Text


def test_texts_and_calls_of_neighbours_are_put_together_and_nothing_is_changed_in_place() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "a", "name": "first"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "", "tool_calls": [1]},
        {"role": "assistant", "content": "c", "tool_calls": [2]},
    ]

    assert neighbours_joined(messages) == [
        {"role": "user", "content": "a\n\nb", "name": "first"},
        {"role": "assistant", "content": "\n\nc", "tool_calls": [1, 2]},
    ]
    assert messages[0]["content"] == "a"


def test_answers_of_tools_stay_apart() -> None:
    answers = [{"role": "tool", "content": "a"}, {"role": "tool", "content": "b"}]

    assert neighbours_joined(answers) == answers


@pytest.mark.parametrize("given", ["'text'", "[1, 2]", "[{'role': 'user'}] * 2", "messages[0]"])
def test_a_template_that_gives_it_something_else_is_told_so(given: str) -> None:
    template = ChatTemplate("{% for one in (" + given + ") | _neighbours_joined %}x{% endfor %}")

    with pytest.raises(EngineError):
        template.render([Message(role="user", parts=(Text("hi"),))])


def test_a_template_cannot_make_much_out_of_little_with_it() -> None:
    template = ChatTemplate(
        "{% set go = namespace(messages=messages) %}{% for _ in range(60) %}"
        "{% set go.messages = (go.messages + go.messages) | _neighbours_joined %}{% endfor %}"
    )

    with pytest.raises(EngineError, match="not safe to run"):
        template.render([Message(role="user", parts=(Text("hi"),))])
