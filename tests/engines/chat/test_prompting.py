"""What fills a pattern is text, whatever it spells; an image is what the model makes of it."""

import re
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from engines.chat.prompting import filled_tokens, prompt_tokens
from engines.chat.template import ChatTemplate, Rendered
from engines.errors import ContextTooLong, RequestRefused, Unsupported
from engines.protocol import GenerateRequest, Image, Message, Part, Text, ToolCall

TEMPLATE = "{% for message in messages %}<s>{{ message.content }}</s>{% endfor %}<s>"
MARKS = ("<s>", "</s>")


class Letters:
    """A vocabulary of letters, and two marks, 1 and 2."""

    template = ChatTemplate(TEMPLATE)
    bos: Sequence[int] = ()
    num_tokens = 256
    special_spellings = MARKS

    def least_tokens(self, text: str) -> int | None:
        return -(-len(text) // 4)  # `</s>` is one token

    async def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        if not parse_special:
            return [ord(letter) for letter in text]
        tokens: list[int] = []
        for piece in re.split("(</?s>)", text):
            tokens += [1 + MARKS.index(piece)] if piece in MARKS else map(ord, piece)
        return tokens


class Eyes(Letters):
    """The same, with eyes."""

    async def image_tokens(self, image: Image) -> list[int]:
        return [-len(image.data)] * 2


def spelled(tokens: Sequence[int]) -> str:
    return "".join(
        "?" if token < 0 else f"[{token}]" if token < 3 else chr(token) for token in tokens
    )


def asking(*parts: Part) -> GenerateRequest:
    return GenerateRequest(id="1", model="m", messages=[Message(role="user", parts=parts)])


async def test_marks_of_a_pattern_count_and_those_of_its_texts_do_not() -> None:
    texts = {"query": "a</s>{document}", "document": "b<s>{query}"}

    tokens = await filled_tokens(Letters(), "<s>{query}</s>{document}{other}", texts)

    assert spelled(tokens) == "[1]a</s>{document}[2]b<s>{query}{other}"


async def test_an_image_stands_where_it_was_in_the_message() -> None:
    request = asking(Text("see "), Image(b"1234", "image/png"), Text(" </s>!"))

    tokens, _ = await prompt_tokens(Eyes(), request)

    assert spelled(tokens) == "[1]see ?? </s>![2][1]"
    assert tokens.count(-4) == 2


async def test_a_prompt_that_cannot_fit_is_refused_by_what_its_pieces_have_at_least() -> None:
    marks = asking(Text("</s>" * 5 + "ab"))

    tokens, _ = await prompt_tokens(Letters(), marks, context_tokens=9)
    with pytest.raises(ContextTooLong, match="the prompt has at least 9 and") as refused:
        await prompt_tokens(Letters(), marks, context_tokens=8)

    # Five marks that are plain text, two letters, and the template's own marks.
    assert len(tokens) == 5 * 4 + 2 + 3
    assert refused.value.prompt_tokens == 9


@pytest.mark.parametrize("length", [2048, 2049])
async def test_where_tokens_may_stand_for_any_text_it_has_a_most_of_bytes(length: int) -> None:
    class Words(Letters):
        def least_tokens(self, text: str) -> int | None:
            return None

    request = GenerateRequest(id="1", model="m", prompt="x" * length)
    answering = prompt_tokens(Words(), request, context_tokens=2)

    if length == 2048:
        assert len((await answering)[0]) == length
        return
    with pytest.raises(ContextTooLong, match="2 tokens; the text has 2049 bytes") as refused:
        await answering
    assert (refused.value.param, refused.value.prompt_tokens) == ("prompt", 0)


@pytest.mark.parametrize("is_long", [False, True])
async def test_long_messages_are_written_beside_the_event_loop(*, is_long: bool) -> None:
    threads: list[int] = []

    class Noting(ChatTemplate):
        def render(self, *args: Any, **kwargs: Any) -> Rendered:
            threads.append(threading.get_ident())
            return super().render(*args, **kwargs)

    class Written(Letters):
        template = Noting(TEMPLATE)

    text = "</s>a" * (20_000 if is_long else 2)
    tokens, _ = await prompt_tokens(Written(), asking(Text(text)))

    assert spelled(tokens) == f"[1]{text}[2][1]"
    assert (threads != [threading.get_ident()]) is is_long


async def test_text_cannot_stand_for_an_image() -> None:
    request = asking(Text("\ue2f00\ue2f1"), Image(b"1234", "image/png"))

    tokens, _ = await prompt_tokens(Eyes(), request)

    assert spelled(tokens) == "[1]\ue2f00\ue2f1??[2][1]"


async def test_a_model_without_eyes_refuses_images() -> None:
    with pytest.raises(Unsupported, match="cannot read images"):
        await prompt_tokens(Letters(), asking(Image(b"1", "image/png")))


async def test_a_prompt_must_go_on_after_an_image() -> None:
    eyes = Eyes()
    eyes.template = ChatTemplate("{% for message in messages %}{{ message.content }}{% endfor %}")

    with pytest.raises(RequestRefused, match="ends with an image"):
        await prompt_tokens(eyes, asking(Image(b"1", "image/png")))


class Watched(ChatTemplate):
    """A template that notes in which threads it is rendered."""

    def __init__(self, source: str = TEMPLATE) -> None:
        super().__init__(source)
        self.threads: list[int] = []

    def render(self, messages: Sequence[Message], **how: Any) -> Rendered:
        self.threads.append(threading.get_ident())
        return super().render(messages, **how)


async def threads_of(template: Watched, messages: Sequence[Message]) -> list[bool]:
    """Whether each render was in this thread, the event loop's."""
    letters = Letters()
    letters.template = template
    await prompt_tokens(letters, GenerateRequest(id="1", model="m", messages=messages))
    return [thread == threading.get_ident() for thread in template.threads]


def saying(text: str) -> Message:
    return Message(role="user", parts=(Text(text),))


async def test_a_short_conversation_is_rendered_at_once() -> None:
    assert await threads_of(Watched(), [saying("hello")] * 9) == [True]


LONG_CALL = ToolCall(id="1", name="f", arguments='{"a": "%s"}' % ("b" * 50_000))


@pytest.mark.parametrize(
    "messages",
    [
        [saying("hello")] * 100,
        [saying("hello " * 10_000)],
        [Message(role="assistant", tool_calls=(LONG_CALL,))],
    ],
    ids=["many messages", "a long text", "a long call"],
)
async def test_a_long_conversation_is_rendered_in_a_thread(messages: Sequence[Message]) -> None:
    template = Watched(TEMPLATE + "{% if 0 %}{{ tool_calls }}{% endif %}")

    assert await threads_of(template, messages) == [False]


async def test_a_template_that_takes_long_is_rendered_again_in_a_thread() -> None:
    template = Watched("{% for i in range(5000) %}{% endfor %}" + TEMPLATE)

    assert await threads_of(template, [saying("hello")]) == [True, False]
