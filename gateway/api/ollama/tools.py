"""The tools that a chat offers. Ollama reads them loosely: a tool is what has a function."""

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from engines.protocol import Tool
from gateway.errors import BadRequest

MAX_TOOLS = 128
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Function(Struct, frozen=True):
    """A function's definition."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class SentTool(Struct, frozen=True):
    """One tool."""

    function: Function
    type: str = "function"


def to_tools(given: Sequence[SentTool] | None) -> list[Tool]:
    """The tools. Raises `BadRequest` for a bad name or one that is there twice."""
    if given is not None and len(given) > MAX_TOOLS:
        raise BadRequest(f"tools has {len(given)} entries; at most {MAX_TOOLS}", param="tools")
    tools: dict[str, Tool] = {}
    for place, sent in enumerate(given or ()):
        name, field = sent.function.name, f"tools[{place}].function.name"
        if not _NAME.fullmatch(name):
            raise BadRequest(
                f"{field} is {name[:60]!r}; names are 1 to 128 letters, digits, _ . : or -",
                param=field,
            )
        if name in tools:
            raise BadRequest(f"{field} {name!r} is there twice", param=field)
        tools[name] = Tool(
            name=name,
            description=sent.function.description or "",
            parameters=sent.function.parameters or {},
        )
    return list(tools.values())
