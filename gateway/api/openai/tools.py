"""Tools a chat request offers and which of them the model may or must call.

The deprecated `functions` and `function_call` become the same things; only
the answer is written differently for them.
"""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from engines.protocol import NamedTool, Tool, ToolChoice
from gateway.api.openai.names import check_name
from gateway.errors import BadRequest

MAX_TOOLS = 128


class Function(Struct, frozen=True, forbid_unknown_fields=True):
    """A function's definition."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(
    Struct, frozen=True, tag_field="type", tag="function", forbid_unknown_fields=True
):
    """A tool that is a function: the only kind served."""

    function: Function


class CustomTool(Struct, frozen=True, tag_field="type", tag="custom", forbid_unknown_fields=True):
    """A tool that takes free text; known, and refused by name."""

    custom: dict[str, Any]


WireTool = FunctionTool | CustomTool


class FunctionName(Struct, frozen=True, forbid_unknown_fields=True):
    """A function, by name."""

    name: str


class FunctionChoice(
    Struct, frozen=True, tag_field="type", tag="function", forbid_unknown_fields=True
):
    """The model must call this function."""

    function: FunctionName


class CustomChoice(Struct, frozen=True, tag_field="type", tag="custom", forbid_unknown_fields=True):
    """The model must call this custom tool; refused with the tool itself."""

    custom: FunctionName


class AllowedTools(Struct, frozen=True, forbid_unknown_fields=True):
    """The inside of an `allowed_tools` choice."""

    mode: Literal["auto", "required"]
    tools: list[FunctionChoice | CustomChoice]


class AllowedToolsChoice(
    Struct, frozen=True, tag_field="type", tag="allowed_tools", forbid_unknown_fields=True
):
    """Only some of the tools, for this request."""

    allowed_tools: AllowedTools


# A string is checked below: msgspec would say only that it is not an object.
WireToolChoice = str | FunctionChoice | CustomChoice | AllowedToolsChoice
WireFunctionCall = str | FunctionName


def to_tools(given: Sequence[WireTool]) -> list[Tool]:
    """The tools. Raises `BadRequest` for a bad or repeated name, or a custom tool."""
    functions: list[Function] = []
    for place, tool in enumerate(given):
        if isinstance(tool, CustomTool):
            raise _custom_refused(f"tools[{place}].type")
        functions.append(tool.function)
    return _to_tools(functions, "tools[{}].function", "tools")


def functions_to_tools(given: Sequence[Function]) -> list[Tool]:
    """The same from the deprecated `functions`."""
    return _to_tools(given, "functions[{}]", "functions")


def to_tool_choice(
    given: WireToolChoice | None, tools: Sequence[Tool]
) -> tuple[ToolChoice, Sequence[Tool]]:
    """The choice, and the tools that it leaves to the model."""
    names = {tool.name for tool in tools}
    match given:
        case None | "auto":
            return "auto", tools
        case "none":
            return "none", tools
        case "required":
            if not tools:
                raise BadRequest(
                    'tool_choice is "required" and there are no tools', param="tool_choice"
                )
            return "required", tools
        case FunctionChoice():
            field = "tool_choice.function.name"
            return NamedTool(_known(given.function.name, names, field)), tools
        case AllowedToolsChoice():
            return _allowed(given.allowed_tools, tools)
        case CustomChoice():
            raise _custom_refused("tool_choice.type")
        case _:
            raise _not_a_choice(given, "tool_choice", 'auto", "none", "required')


def function_call_to_choice(given: WireFunctionCall | None, tools: Sequence[Tool]) -> ToolChoice:
    """The deprecated `function_call` as a choice."""
    match given:
        case None | "auto":
            return "auto"
        case "none":
            return "none"
        case FunctionName():
            return NamedTool(_known(given.name, {t.name for t in tools}, "function_call.name"))
        case _:
            raise _not_a_choice(given, "function_call", 'auto", "none')


def _to_tools(functions: Sequence[Function], place_of: str, field: str) -> list[Tool]:
    if len(functions) > MAX_TOOLS:
        raise BadRequest(f"{field} has {len(functions)} entries; at most {MAX_TOOLS}", param=field)
    tools: dict[str, Tool] = {}
    for place, function in enumerate(functions):
        path = f"{place_of.format(place)}.name"
        check_name(function.name, path)
        if function.name in tools:
            raise BadRequest(f"{path} {function.name!r} is there twice", param=path)
        tools[function.name] = Tool(
            name=function.name,
            description=function.description or "",
            parameters=function.parameters or {},
        )
    return list(tools.values())


def _allowed(allowed: AllowedTools, tools: Sequence[Tool]) -> tuple[ToolChoice, Sequence[Tool]]:
    names = {tool.name for tool in tools}
    chosen: set[str] = set()
    for place, choice in enumerate(allowed.tools):
        field = f"tool_choice.allowed_tools.tools[{place}]"
        if isinstance(choice, CustomChoice):
            raise _custom_refused(f"{field}.type")
        chosen.add(_known(choice.function.name, names, f"{field}.function.name"))
    left = [tool for tool in tools if tool.name in chosen]
    if not left:
        raise BadRequest(
            "tool_choice.allowed_tools.tools is empty", param="tool_choice.allowed_tools.tools"
        )
    return allowed.mode, left


def _known(name: str, names: set[str], field: str) -> str:
    if name not in names:
        there = ", ".join(sorted(names)) or "no tools"
        raise BadRequest(
            f"{field} is {name[:64]!r}, which is not among the tools ({there})", param=field
        )
    return name


def _not_a_choice(given: object, field: str, words: str) -> BadRequest:
    return BadRequest(
        f'{field} is {str(given)[:64]!r}; it must be "{words}" or an object that names a function',
        param=field,
    )


def _custom_refused(field: str) -> BadRequest:
    return BadRequest(f'{field} is "custom"; only function tools are served', param=field)
