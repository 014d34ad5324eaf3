"""The messages of a chat request, by role, and the conversation they become.

A role's Struct says what that role must have: that is how a tool message
without `tool_call_id` is refused by name. Clients send answers back as they
got them, so fields of an answer are known here too.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from engines.protocol import Image, Message, Part, Text, ToolCall
from gateway.api.openai.names import check_name
from gateway.errors import BadRequest

MAX_MESSAGES = 4096
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")


class TextPart(Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Text."""

    text: str
    prompt_cache_breakpoint: dict[str, Any] | None = None  # ignored, see docs/api.md


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    """What the model said when it refused."""

    refusal: str


class ImageUrl(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a picture is: in a `data:` URL, or where a plugin may fetch it."""

    url: str
    detail: str | None = None  # ignored, see docs/api.md


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url", forbid_unknown_fields=True):
    """A picture."""

    image_url: ImageUrl
    prompt_cache_breakpoint: dict[str, Any] | None = None


class AudioPart(
    Struct, frozen=True, tag_field="type", tag="input_audio", forbid_unknown_fields=True
):
    """Sound; known, and refused by name."""

    input_audio: dict[str, Any]
    prompt_cache_breakpoint: dict[str, Any] | None = None


class FilePart(Struct, frozen=True, tag_field="type", tag="file", forbid_unknown_fields=True):
    """A file; known, and refused by name."""

    file: dict[str, Any]
    prompt_cache_breakpoint: dict[str, Any] | None = None


TextContent = str | list[TextPart]
UserContent = str | list[TextPart | ImagePart | AudioPart | FilePart]
AssistantContent = str | list[TextPart | RefusalPart]
AnyPart = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class SystemMessage(
    Struct, frozen=True, tag_field="role", tag="system", forbid_unknown_fields=True
):
    """Instructions."""

    content: TextContent
    name: str | None = None


class DeveloperMessage(
    Struct, frozen=True, tag_field="role", tag="developer", forbid_unknown_fields=True
):
    """Instructions, in OpenAI's newer word; models know them as system messages."""

    content: TextContent
    name: str | None = None


class UserMessage(Struct, frozen=True, tag_field="role", tag="user", forbid_unknown_fields=True):
    """What the user says."""

    content: UserContent
    name: str | None = None


class CalledFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """The function that was called; `arguments` is JSON text."""

    name: str
    arguments: str


class AssistantToolCall(Struct, frozen=True, forbid_unknown_fields=True):
    """A call the model made."""

    id: str
    function: CalledFunction | None = None
    type: str = "function"
    custom: dict[str, Any] | None = None
    index: int | None = None  # of a streamed answer that was put together


class AssistantMessage(
    Struct, frozen=True, tag_field="role", tag="assistant", forbid_unknown_fields=True
):
    """What the model said, or the tools it called. The last five fields are ignored."""

    content: AssistantContent | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[AssistantToolCall] | None = None
    function_call: CalledFunction | None = None
    audio: dict[str, Any] | None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    parsed: Any = None


class ToolMessage(Struct, frozen=True, tag_field="role", tag="tool", forbid_unknown_fields=True):
    """What a tool answered."""

    content: TextContent
    tool_call_id: str
    name: str | None = None


class FunctionMessage(
    Struct, frozen=True, tag_field="role", tag="function", forbid_unknown_fields=True
):
    """What a function answered: the deprecated form of a tool message."""

    content: str | None
    name: str


WireMessage = (
    SystemMessage
    | DeveloperMessage
    | UserMessage
    | AssistantMessage
    | ToolMessage
    | FunctionMessage
)


def to_messages(
    given: Sequence[WireMessage], fetched: Mapping[str, Image] = MappingProxyType({})
) -> list[Message]:
    """The conversation, with images `fetched` by their addresses.

    Raises `BadRequest` that names the message."""
    if not given:
        raise BadRequest("messages is empty; send at least one", param="messages")
    if len(given) > MAX_MESSAGES:
        raise BadRequest(
            f"messages has {len(given)} entries; at most {MAX_MESSAGES}", param="messages"
        )
    return [
        _to_message(message, f"messages[{place}]", fetched) for place, message in enumerate(given)
    ]


def _to_message(given: WireMessage, field: str, fetched: Mapping[str, Image]) -> Message:
    match given:
        case SystemMessage() | DeveloperMessage():
            return Message(role="system", parts=_parts(given.content, field), name=given.name)
        case UserMessage():
            parts = _parts(given.content, field, fetched)
            return Message(role="user", parts=parts, name=given.name)
        case AssistantMessage():
            return _assistant(given, field)
        case ToolMessage():
            return Message(
                role="tool",
                parts=_parts(given.content, field),
                name=given.name,
                answers_tool_call=_filled(given.tool_call_id, f"{field}.tool_call_id"),
            )
        case FunctionMessage():
            parts = (Text(given.content),) if given.content else ()
            check_name(given.name, f"{field}.name")
            return Message(
                role="tool", parts=parts, name=given.name, answers_tool_call=_call_id(given.name)
            )


def _assistant(given: AssistantMessage, field: str) -> Message:
    if given.audio is not None:
        raise BadRequest(f"{field}.audio: no audio is served here", param=f"{field}.audio")
    calls = [
        _tool_call(call, f"{field}.tool_calls[{place}]")
        for place, call in enumerate(given.tool_calls or ())
    ]
    if (legacy := given.function_call) is not None:
        check_name(legacy.name, f"{field}.function_call.name")
        calls.append(
            ToolCall(id=_call_id(legacy.name), name=legacy.name, arguments=legacy.arguments)
        )
    content = given.content if given.content is not None else given.refusal
    if content is None and not calls:
        raise BadRequest(
            f"{field}.content is missing, and there are no tool_calls in its place",
            param=f"{field}.content",
        )
    parts = _parts(content, field) if content or (content is not None and not calls) else ()
    return Message(role="assistant", parts=parts, name=given.name, tool_calls=calls)


def _tool_call(given: AssistantToolCall, field: str) -> ToolCall:
    if given.type != "function" or given.function is None:
        raise BadRequest(
            f'{field}.type is {given.type[:64]!r}; only calls of type "function", with a '
            "`function`, are served",
            param=f"{field}.type",
        )
    check_name(given.function.name, f"{field}.function.name")
    return ToolCall(
        id=_filled(given.id, f"{field}.id"),
        name=given.function.name,
        arguments=given.function.arguments,
    )


def _parts(
    content: str | Sequence[AnyPart],
    field: str,
    fetched: Mapping[str, Image] = MappingProxyType({}),
) -> list[Part]:
    if isinstance(content, str):
        return [Text(content)]
    if not content:
        raise BadRequest(f"{field}.content is an empty list", param=f"{field}.content")
    return [_part(part, f"{field}.content[{place}]", fetched) for place, part in enumerate(content)]


def _part(given: AnyPart, field: str, fetched: Mapping[str, Image]) -> Part:
    match given:
        case TextPart():
            return Text(given.text)
        case RefusalPart():
            return Text(given.refusal)
        case ImagePart():
            url = given.image_url.url
            return fetched.get(url) or _image(url, f"{field}.image_url.url")
        case AudioPart():
            raise BadRequest(f"{field}: audio input is not served here", param=f"{field}.type")
        case FilePart():
            raise BadRequest(f"{field}: file input is not served here", param=f"{field}.type")


def _image(url: str, field: str) -> Image:
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma:
        # Fetching a caller's URL from inside the network would let callers reach
        # what only the gateway can.
        raise BadRequest(
            f"{field} is not a data: URL; pictures are not fetched from the network, send "
            "data:image/png;base64,…",
            param=field,
        )
    media_type, _, encoding = head.removeprefix("data:").partition(";")
    if media_type not in IMAGE_TYPES or encoding != "base64":
        raise BadRequest(
            f"{field} is {head[:64]!r}; it must be data:<type>;base64 with one of the types "
            f"{', '.join(IMAGE_TYPES)}",
            param=field,
        )
    try:
        return Image(data=base64.b64decode(data, validate=True), media_type=media_type)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"{field} is not valid base64: {error}", param=field) from None


def _filled(text: str, field: str) -> str:
    if not text:
        raise BadRequest(f"{field} is empty", param=field)
    return text


def _call_id(function: str) -> str:
    # Deprecated function messages name the function, not the call.
    return f"call_{function}"
