import base64
from typing import Any

import msgspec
import pytest

from engines.protocol import Image, Message, Text, ToolCall
from gateway.api.openai.messages import WireMessage, to_messages
from gateway.errors import BadRequest


def converted(*messages: dict[str, Any]) -> list[Message]:
    return to_messages(msgspec.convert(list(messages), list[WireMessage]))


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_reach_the_model_as_system_messages(role: str) -> None:
    assert converted({"role": role, "content": "be brief"}) == [
        Message(role="system", parts=[Text("be brief")])
    ]


def test_text_parts_stay_apart() -> None:
    (message,) = converted(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "text", "text": "b"},
            ],
        }
    )

    assert message.parts == [Text("a"), Text("b")]
    assert message.text == "ab"


def test_a_picture_comes_in_its_url() -> None:
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()

    (message,) = converted(
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}],
        }
    )

    assert message.parts == [Image(b"\x89PNG", "image/png")]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/cat.png",
        "file:///etc/passwd",
        "data:image/png,plain",
        "data:text/html;base64,AAAA",
        "data:image/png;base64,A",
        "data:",
        "",
    ],
)
def test_a_picture_from_anywhere_else_is_refused(url: str) -> None:
    with pytest.raises(BadRequest) as raised:
        converted({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})

    assert raised.value.param == "messages[0].content[0].image_url.url"


def test_a_tool_call_and_its_answer() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    asked, answered = converted(
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "4"},
    )

    assert asked.parts == ()
    assert asked.tool_calls == [ToolCall(id="call_1", name="f", arguments="{}")]
    assert (answered.role, answered.answers_tool_call, answered.text) == ("tool", "call_1", "4")


def test_a_deprecated_function_call_and_its_answer_find_each_other() -> None:
    asked, answered = converted(
        {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
    )

    assert answered.role == "tool"
    assert answered.name == "f"
    assert asked.tool_calls[0].id == answered.answers_tool_call


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "x", "reasoning_content": "y", "annotations": [], "audio": None}, "x"),
        ({"refusal": "no"}, "no"),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, "no"),
        ({"content": ""}, ""),
    ],
)
def test_what_the_assistant_said_is_text(message: dict[str, Any], text: str) -> None:
    (said,) = converted({"role": "assistant"} | message)

    assert said.text == text


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant"}, "messages[0].content"),
        ({"role": "assistant", "content": [], "tool_calls": []}, "messages[0].content"),
        ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "tool", "tool_call_id": "", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "function", "name": "a b", "content": "x"}, "messages[0].name"),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {}}]},
            "messages[0].tool_calls[0].type",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "", "function": {"name": "f", "arguments": ""}}],
            },
            "messages[0].tool_calls[0].id",
        ),
    ],
)
def test_a_message_that_cannot_be_is_named(message: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as raised:
        converted(message)

    assert raised.value.param == param
