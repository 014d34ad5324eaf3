import base64
from typing import Any

import msgspec
import pytest

from engines.protocol import Image, Message
from gateway.api.ollama.images import to_images
from gateway.api.ollama.messages import SentMessage, to_messages
from gateway.errors import BadRequest


def read(*messages: dict[str, Any]) -> list[Message]:
    return to_messages(msgspec.convert(list(messages), type=list[SentMessage]))


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"x": 1}}, **more}


def test_a_tools_answer_finds_its_call_by_name_or_by_order() -> None:
    messages = read(
        {"role": "assistant", "tool_calls": [called("a"), called("b"), called("a")]},
        {"role": "tool", "tool_name": "b", "content": "of b"},
        {"role": "tool", "content": "of the first"},
        {"role": "tool", "tool_name": "a", "content": "of the other"},
    )

    ids = [call.id for call in messages[0].tool_calls]
    assert len(set(ids)) == 3
    assert [one.answers_tool_call for one in messages[1:]] == [ids[1], ids[0], ids[2]]
    assert [one.name for one in messages[1:]] == ["b", "a", "a"]
    assert messages[0].tool_calls[0].arguments == '{"x":1}'
    assert messages[0].parts == []


def test_ids_that_a_client_gives_stay() -> None:
    messages = read(
        {"role": "assistant", "content": "", "tool_calls": [called("a", id="mine")]},
        {"role": "tool", "tool_call_id": "mine", "content": "1"},
    )

    assert messages[0].tool_calls[0].id == messages[1].answers_tool_call == "mine"


def test_an_answer_to_nothing_is_let_pass() -> None:
    (message,) = read({"role": "tool", "content": "1", "tool_name": "a"})

    assert (message.text, message.name) == ("1", "a")


def test_a_picture_says_itself_what_it_is() -> None:
    marks = {
        b"\x89PNG\r\n\x1a\nrest": "image/png",
        b"\xff\xd8\xff\xe0rest": "image/jpeg",
        b"GIF89arest": "image/gif",
        b"RIFF0000WEBPrest": "image/webp",
    }

    for content, media_type in marks.items():
        text = base64.b64encode(content).decode()
        assert to_images([text], "images") == [Image(data=content, media_type=media_type)]
        assert to_images([f"data:{media_type};base64,{text}"], "images")[0].data == content


@pytest.mark.parametrize("text", ["not base64!", base64.b64encode(b"<svg>").decode(), ""])
def test_what_is_no_picture_is_refused_by_its_place(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read({"role": "user", "content": "see", "images": [text]})

    assert caught.value.param == "messages[0].images[0]"


def test_a_role_that_nobody_has_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"messages\[0\].role is 'robot'"):
        read({"role": "robot", "content": "x"})
