"""What is said in a conversation, and which tools the model may call in it.

A part of engines/protocol.py, which has all of these names too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct


class Text(Struct, frozen=True, tag="text"):
    """A piece of a message that is text."""

    text: str


class Image(Struct, frozen=True, tag="image"):
    """A piece of a message that is a picture, already fetched."""

    data: bytes
    media_type: str


Part = Text | Image


class ToolCall(Struct, frozen=True, kw_only=True):
    """A finished tool call, as a past message carries it; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class Tool(Struct, frozen=True, kw_only=True):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = {}


class NamedTool(Struct, frozen=True):
    """A tool choice: the model must call the tool of this name."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


class Message(Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: str
    parts: Sequence[Part] = ()
    name: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    answers_tool_call: str | None = None

    @property
    def text(self) -> str:
        """The text of all text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))
