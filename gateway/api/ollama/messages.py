"""The messages of a chat, and the conversation that they become.

Ollama's tool calls need no ids: an answer names its tool, or just comes next. Models'
templates want ids, so they are given here.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engines.protocol import Message, Part, Text, ToolCall
from gateway.api.ollama.images import to_images
from gateway.errors import BadRequest

MAX_MESSAGES = 4096
ROLES = ("system", "developer", "user", "assistant", "tool")


class CalledFunction(Struct, frozen=True):
    """The function that was called."""

    name: str
    arguments: dict[str, Any] | str = {}
    index: int | None = None


class SentToolCall(Struct, frozen=True):
    """A call that the model made, sent back to it."""

    function: CalledFunction
    id: str = ""


class SentMessage(Struct, frozen=True):
    """One message. `thinking` is read and left out: templates leave out past thoughts, too."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[SentToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


def to_messages(given: Sequence[SentMessage]) -> list[Message]:
    """The conversation. Raises `BadRequest` that names the message."""
    if len(given) > MAX_MESSAGES:
        raise BadRequest(
            f"messages has {len(given)} entries; at most {MAX_MESSAGES}", param="messages"
        )
    unanswered: list[ToolCall] = []
    messages: list[Message] = []
    for place, message in enumerate(given):
        field = f"messages[{place}]"
        if message.role not in ROLES:
            raise BadRequest(
                f"{field}.role is {message.role[:60]!r}; it can be {', '.join(ROLES)}",
                param=f"{field}.role",
            )
        if message.role == "tool":
            messages.append(_tool_answer(message, unanswered))
            continue
        calls = _calls(message, place)
        unanswered = [*unanswered, *calls]
        messages.append(Message(role=message.role, parts=_parts(message, field), tool_calls=calls))
    return messages


def _calls(message: SentMessage, place: int) -> list[ToolCall]:
    return [
        ToolCall(
            id=call.id or f"call_{place}_{nth}",
            name=call.function.name,
            arguments=_as_json(call.function.arguments),
        )
        for nth, call in enumerate(message.tool_calls or ())
    ]


def _tool_answer(message: SentMessage, unanswered: list[ToolCall]) -> Message:
    """The answer to the call that it names, else to the first of that tool, else to the first."""
    named = [call for call in unanswered if call.name == message.tool_name]
    call = (named or unanswered)[0] if message.tool_call_id is None and unanswered else None
    if call is not None:
        unanswered.remove(call)
    return Message(
        role="tool",
        parts=[Text(message.content or "")],
        name=message.tool_name or (call.name if call is not None else None),
        answers_tool_call=message.tool_call_id or (call.id if call is not None else "call_0"),
    )


def _parts(message: SentMessage, field: str) -> list[Part]:
    images = to_images(message.images, f"{field}.images")
    if message.content or not (images or message.tool_calls):
        return [Text(message.content or ""), *images]
    return list(images)


def _as_json(arguments: dict[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
