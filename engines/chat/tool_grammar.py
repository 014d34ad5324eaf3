"""Forces a tool call: the grammar of a call in the model's own format.

Used when `tool_choice` is "required" or names a tool. The arguments are kept to
each tool's own schema; unknown keywords in it (an OpenAPI `format`, say) are
let pass, as the caller wrote the schema for a description, not for a compiler.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from engines.chat.constraint_limits import check_schema
from engines.chat.tool_format import ToolFormat
from engines.errors import RequestRefused
from engines.protocol import NamedTool, Tool, ToolChoice

MAX_CALLS = 16
MAX_TOOLS = 128
_ONE_MORE_LINE = r'"\n" one'
_AFTER_SEMICOLON = '"; " call'
_AFTER_COMMA = '", " call'
# One blank, or a new line and its indentation: small models write blanks without end.
JSON_STYLE = {
    "whitespace_flexible": True,
    "whitespace_pattern": r"( |\n {0,16})",
    "json_allow_general_unicode_escapes": True,
}


class ToolConstraint(Struct, frozen=True, kw_only=True):
    """Constraint: one call of one of these tools, or several if `parallel`."""

    tools: Sequence[Tool]
    tool_format: ToolFormat
    parallel: bool


def tool_constraint(
    tools: Sequence[Tool], tool_choice: ToolChoice, tool_format: ToolFormat, *, parallel: bool
) -> ToolConstraint | None:
    """Return what `tool_choice` forces the model to write; None if it is free to choose."""
    if isinstance(tool_choice, NamedTool):
        tools = [tool for tool in tools if tool.name == tool_choice.name]
        if not tools:
            raise RequestRefused(
                f"tool_choice names {tool_choice.name!r}, which is not in tools",
                param="tool_choice",
            )
        # OpenAI's own answer to a named choice is one call, whatever `parallel` says.
        parallel = False
    elif tool_choice != "required":
        return None
    if not tools:
        raise RequestRefused("tool_choice is required, but there are no tools", param="tool_choice")
    return ToolConstraint(tools=tools, tool_format=tool_format, parallel=parallel)


def tool_grammar(constraint: ToolConstraint, param: str, special: Mapping[str, int]) -> str:
    """Write the grammar, in Lark; `special` has the ids of the tokens that no text matches."""
    if len(constraint.tools) > MAX_TOOLS:
        message = f"there are {len(constraint.tools)} tools, over {MAX_TOOLS}"
        raise RequestRefused(message, param=param)

    def then(more: str) -> str:
        return f"({more}){{0,{MAX_CALLS - 1}}}" if constraint.parallel else ""

    match constraint.tool_format:
        case ToolFormat.HERMES:
            opened, closed = (_token(tag, special) for tag in ("<tool_call>", "</tool_call>"))
            rules = [
                f"start: one {then(_ONE_MORE_LINE)}",
                f'one: {opened} "\\n" call "\\n" {closed}',
            ]
            key = "arguments"
        case ToolFormat.LLAMA3_JSON:
            rules = [f"start: call {then(_AFTER_SEMICOLON)}"]
            key = "parameters"
        case ToolFormat.MISTRAL if "[ARGS]" in special:
            # The newer form, for the models that were given a token for it.
            rules = [f"start: one {then('one')}", f"one: {_token('[TOOL_CALLS]', special)} call"]
            key = None
        case ToolFormat.MISTRAL:
            opened = _token("[TOOL_CALLS]", special)
            rules = [f'start: {opened} "[" call {then(_AFTER_COMMA)} "]"']
            key = "arguments"
    rules.append("call: " + " | ".join(f"call_{at}" for at in range(len(constraint.tools))))
    for at, tool in enumerate(constraint.tools):
        before = json.dumps(f'{{"name": {json.dumps(tool.name)}, "{key}": ')
        if key is None:
            before = f"{json.dumps(tool.name)} {_token('[ARGS]', special)}"
        rules.append(f"call_{at}: {before} arguments_{at}" + (' "}"' if key else ""))
        rules.append(f"arguments_{at}: %json {_arguments(tool, param)}")
    return "\n".join(rules)


def _token(tag: str, special: Mapping[str, int]) -> str:
    return f"<[{special[tag]}]>" if tag in special else json.dumps(tag)


def _arguments(tool: Tool, param: str) -> str:
    """Return the schema of a tool's arguments, always of an object, as JSON."""
    schema: dict[str, Any] = dict(tool.parameters)
    check_schema(schema, param)
    schema.setdefault("type", "object")
    # Any object of fewer keys is valid too, and small models add keys without end.
    schema.setdefault("properties", {})
    schema.setdefault("additionalProperties", False)
    schema["x-guidance"] = {**JSON_STYLE, "lenient": True}
    return json.dumps(schema)
