import json

import pytest

from engines.chat.constraints import ConstraintState
from engines.chat.output import ChatOutput
from engines.chat.tool_format import MARKUP_TOKENS, ToolFormat
from engines.chat.tool_grammar import MAX_TOOLS, tool_constraint
from engines.errors import RequestRefused
from engines.protocol import NamedTool, Tool
from tests.engines.chat.answers import said
from tests.engines.chat.vocabulary import CLOSE, OPEN, TOKENS, follows, new_compiler

ADD = Tool(
    name="add",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer", "format": "int32"}, "b": {"enum": [1, 2]}},
        "required": ["a", "b"],
    },
)
NOW = Tool(name='now "here"')
COMPILER = new_compiler()
HERMES, LLAMA, MISTRAL = ToolFormat.HERMES, ToolFormat.LLAMA3_JSON, ToolFormat.MISTRAL

CALLS = {
    HERMES: (
        '<tool_call>\n{"name": "add", "arguments": {"a": 5, "b": 1}}\n</tool_call>',
        "\n",
        '<tool_call>\n{"name": "now \\"here\\"", "arguments": {}}\n</tool_call>',
    ),
    LLAMA: (
        '{"name": "add", "parameters": {"a": 5, "b": 1}}',
        "; ",
        '{"name": "now \\"here\\"", "parameters": {}}',
    ),
    MISTRAL: (
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": 5, "b": 1}}',
        ", ",
        '{"name": "now \\"here\\"", "arguments": {}}]',
    ),
}


def state(choice: str | NamedTool, form: ToolFormat, *, parallel: bool = True) -> ConstraintState:
    constraint = tool_constraint([ADD, NOW], choice, form, parallel=parallel)  # type: ignore[arg-type]
    assert constraint is not None
    return COMPILER.compile(constraint)


@pytest.mark.parametrize("tool_format", list(ToolFormat))
def test_calls_in_the_models_own_format_are_all_that_is_allowed(tool_format: ToolFormat):
    first, between, second = CALLS[tool_format]
    alone = first + "]" * (tool_format is MISTRAL)

    assert follows(state("required", tool_format), alone)
    assert follows(state("required", tool_format), first + between + second)
    assert follows(state("required", tool_format, parallel=False), alone)
    assert not follows(state("required", tool_format, parallel=False), first + between + second)
    assert not follows(state(NamedTool('now "here"'), tool_format), alone)
    assert not follows(state("required", tool_format), "Sure, let me call that")
    assert not state("required", tool_format).may_end


@pytest.mark.parametrize("tool_format", list(ToolFormat))
def test_what_is_forced_is_what_the_parser_finds(tool_format: ToolFormat):
    text = "".join(CALLS[tool_format])

    came = said(ChatOutput(tools=[ADD, NOW], tool_format=tool_format), [text.encode()])

    assert came.text == ""
    assert came.calls == [("add", '{"a": 5, "b": 1}'), ('now "here"', "{}")]


@pytest.mark.parametrize(
    "arguments", ['{"a": 5}', '{"a": "5", "b": 1}', '{"a": 5, "b": 3}', '{"a": 5, "b": 1, "c": 1}']
)
def test_arguments_are_kept_to_the_tools_schema(arguments: str):
    call = f'{{"name": "add", "parameters": {arguments}}}'

    assert not follows(state("required", LLAMA), call)


def test_tags_that_are_special_tokens_are_forced_as_tokens():
    compiler = new_compiler(special_calls=True)
    constraint = tool_constraint([NOW], "required", HERMES, parallel=True)
    assert constraint is not None
    forced = compiler.compile(constraint)

    assert not forced.allows(ord("<"))
    forced.accept(OPEN)
    assert not follows(forced, f"\n{json.dumps({'name': NOW.name, 'arguments': {}})}\n")
    assert forced.allows(CLOSE)
    forced.accept(CLOSE)
    assert forced.may_end
    assert TOKENS[OPEN].decode() in MARKUP_TOKENS


def test_mistrals_newer_form_is_forced_where_the_vocabulary_has_its_token():
    from engines.chat.constraints import ConstraintCompiler

    tokens = [*TOKENS, b"[TOOL_CALLS]", b"[ARGS]"]
    called, arguments = len(TOKENS), len(TOKENS) + 1
    compiler = ConstraintCompiler(
        tokens, eos_ids=[264], special_ids={264, called, arguments}, tokenize=list
    )
    constraint = tool_constraint([ADD], NamedTool("add"), MISTRAL, parallel=True)
    assert constraint is not None
    forced = compiler.compile(constraint)

    forced.accept(called)
    assert not follows(forced, "add")
    forced.accept(arguments)
    assert follows(forced, '{"a": 5, "b": 1}')
    assert forced.is_finished


def test_nothing_is_forced_when_the_model_may_choose():
    assert tool_constraint([ADD], "auto", HERMES, parallel=True) is None
    assert tool_constraint([ADD], "none", HERMES, parallel=True) is None


def test_a_choice_that_cannot_be_is_refused():
    with pytest.raises(RequestRefused, match="'mul', which is not in tools") as refused:
        tool_constraint([ADD], NamedTool("mul"), HERMES, parallel=True)
    assert refused.value.param == "tool_choice"
    with pytest.raises(RequestRefused, match="there are no tools"):
        tool_constraint([], "required", HERMES, parallel=True)


def test_what_is_wrong_with_a_tools_schema_is_said_of_the_tools():
    broken = Tool(name="broken", parameters={"type": "nothing"})
    constraint = tool_constraint([broken], "required", HERMES, parallel=True)
    assert constraint is not None

    with pytest.raises(RequestRefused) as refused:
        COMPILER.compile(constraint)

    assert refused.value.param == "tools"


def test_many_tools_are_compiled_and_too_many_refused():
    tools = [Tool(name=f"t{at}", parameters=ADD.parameters) for at in range(MAX_TOOLS)]
    some = tool_constraint(tools, "required", HERMES, parallel=True)
    too_many = tool_constraint([*tools, ADD], "required", HERMES, parallel=True)
    assert some is not None
    assert too_many is not None

    call = '<tool_call>\n{"name": "t77", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
    assert follows(COMPILER.compile(some), call)
    with pytest.raises(RequestRefused, match=f"over {MAX_TOOLS}"):
        COMPILER.compile(too_many)
