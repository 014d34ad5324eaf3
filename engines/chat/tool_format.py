"""The ways in which model families write a tool call."""

from enum import StrEnum


class ToolFormat(StrEnum):
    """How a model writes its tool calls; a template's source tells which (see template.py)."""

    HERMES = "hermes"  # <tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>
    LLAMA3_JSON = "llama3_json"  # {"name": …, "parameters": {…}}; …
    MISTRAL = "mistral"  # [TOOL_CALLS] [{"name": …, "arguments": {…}}], or name[ARGS]{…}


# What an engine must not leave out when it turns tokens into bytes, although some
# vocabularies call these tokens special: the parsers of this package look for them.
MARKUP_TOKENS = frozenset(
    {
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[CALL_ID]",
        "[ARGS]",
    }
)
