import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.chat.markup import Kind, Piece
from engines.chat.tool_calls import ToolCallParser, new_call_id
from engines.chat.tool_format import ToolFormat
from tests.engines.chat.answers import cut, cuts, joined
from tests.engines.chat.test_json_scan import json_objects

HERMES, LLAMA, MISTRAL = ToolFormat.HERMES, ToolFormat.LLAMA3_JSON, ToolFormat.MISTRAL
formats = st.sampled_from(list(ToolFormat))

fragments = st.lists(
    st.sampled_from(
        [
            "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "[ARGS]",
            "[CALL_ID]x9",
            '{"name": "add", "arguments": ', '{"name": "add", "parameters": ', '{"name": "other", ',
            '{"arguments": {}, "name": "add"}', '{"a": "}"}', "{}", "{", "}", "[", "]", ",", "; ",
            '"', "\\", " ", "\n", "add", "text", "<tool", "_call>", " " * 70, "x" * 600,
        ]
    ),
    max_size=14,
).map("".join)  # fmt: skip


def parse(
    tool_format: ToolFormat, chunks: list[str], *, parallel: bool = True
) -> tuple[list[Piece], str, list[tuple[str, str]]]:
    """Return the pieces, and joined from them the text and the calls."""
    parser = ToolCallParser(tool_format, ["add", "sub"], parallel=parallel)
    pieces = [piece for chunk in chunks for piece in parser.feed(chunk)]
    pieces += parser.flush()
    came = joined(piece.call for piece in pieces if piece.call is not None)
    assert parser.num_calls == len(came.calls)
    return pieces, "".join(p.text for p in pieces if p.kind is Kind.TEXT), came.calls


@given(tool_format=formats, text=fragments, places=cuts, parallel=st.booleans())
def test_any_chunking_gives_the_same(
    tool_format: ToolFormat, text: str, places: list[int], parallel: bool
):
    _, text_then, calls = parse(tool_format, cut(text, places), parallel=parallel)

    assert (text_then, calls) == parse(tool_format, [text], parallel=parallel)[1:]


@given(tool_format=formats, text=fragments, places=cuts)
def test_nothing_is_lost(tool_format: ToolFormat, text: str, places: list[int]):
    pieces, _, _ = parse(tool_format, cut(text, places))

    assert "".join(piece.text for piece in pieces if piece.text) == text


def written(tool_format: ToolFormat, calls: list[tuple[str, dict[str, object]]]) -> str:
    key = "parameters" if tool_format is LLAMA else "arguments"
    objects = [json.dumps({"name": name, key: arguments}) for name, arguments in calls]
    match tool_format:
        case ToolFormat.HERMES:
            return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in objects)
        case ToolFormat.LLAMA3_JSON:
            return "; ".join(objects)
        case ToolFormat.MISTRAL:
            return f"[TOOL_CALLS] [{', '.join(objects)}]"


@given(
    tool_format=formats,
    calls=st.lists(
        st.tuples(st.sampled_from(["add", "sub"]), json_objects), min_size=1, max_size=3
    ),
    places=cuts,
)
def test_calls_come_back_as_they_were_written(
    tool_format: ToolFormat, calls: list[tuple[str, dict[str, object]]], places: list[int]
):
    _, text, came = parse(tool_format, cut(written(tool_format, calls), places))

    assert text == ""
    assert came == [(name, json.dumps(arguments)) for name, arguments in calls]


@pytest.mark.parametrize(
    ("tool_format", "written", "text", "calls"),
    [
        (HERMES, 'Wait.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n',
         "Wait.", [("add", '{"a": 1}')]),
        (HERMES, '<tool_call>{"name": "add", "arguments": {}}</tool_call>\nDone.', "\nDone.",
         [("add", "{}")]),
        (HERMES, '<tool_call>\n{"name": "add", "arguments": {"a": "</tool_call>"}}', "",
         [("add", '{"a": "</tool_call>"}')]),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>', "",
         [("add", '{"a": 1}')]),
        (LLAMA, '<|python_tag|>{"name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
        (LLAMA, '{"name": "add", "parameters": {}}; {"name": "sub", "parameters": {}}', "",
         [("add", "{}"), ("sub", "{}")]),
        (LLAMA, '{"answer": 42}', '{"answer": 42}', []),
        (LLAMA, 'It is {"name": "add", "parameters": {}}',
         'It is {"name": "add", "parameters": {}}', []),
        (MISTRAL, '[TOOL_CALLS] [{"name": "add", "arguments": {}, "id": "abc123def"}]', "",
         [("add", "{}")]),
        (MISTRAL, '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]sub[CALL_ID]x1[ARGS]{}', "",
         [("add", '{"a": 1}'), ("sub", "{}")]),
        (MISTRAL, 'Sure.[TOOL_CALLS]add{"a": 1}', "Sure.", [("add", '{"a": 1}')]),
    ],
)  # fmt: skip
def test_each_family(
    tool_format: ToolFormat, written: str, text: str, calls: list[tuple[str, str]]
):
    assert parse(tool_format, list(written))[1:] == (text, calls)


@pytest.mark.parametrize(
    ("tool_format", "text"),
    [
        (HERMES, "<tool_call>\nnot json\n</tool_call>"),
        (HERMES, "<tool_call>{'name': 'add'}</tool_call>"),
        (HERMES, '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "add", "argu'),
        (HERMES, "<tool_call>"),
        (HERMES, "</tool_call> alone"),
        (HERMES, "<tool_call>" + " " * 100 + '{"name": "add", "arguments": {}}'),
        (LLAMA, '{"name": "unknown", "parameters": {}}'),
        (LLAMA, "<|python_tag|>print(1)"),
        (MISTRAL, "[TOOL_CALLS] []"),
        (MISTRAL, "[TOOL_CALLS]unknown{}"),
        (MISTRAL, "[TOOL_CALLS] two words {}"),
    ],
)
def test_what_is_no_call_is_text(tool_format: ToolFormat, text: str):
    assert parse(tool_format, list(text))[1:] == (text, [])


def test_a_call_is_announced_before_its_arguments_and_streams_them():
    parser = ToolCallParser(HERMES, ["add"])

    first = parser.feed('<tool_call>\n{"name": "add", "arguments": {')
    second = parser.feed('"a": 12')
    third = parser.feed("34}}\n</tool_call>")

    deltas = [[piece.call for piece in fed if piece.call] for fed in (first, second, third)]
    assert [(delta.name, delta.arguments) for delta in deltas[0]] == [("add", ""), (None, "{")]
    assert [delta.arguments for delta in deltas[1]] == ['"a": 12']
    assert [delta.arguments for delta in deltas[2]] == ["34}"]


def test_arguments_that_break_off_keep_what_was_sent_and_the_rest_is_text():
    _, text, calls = parse(
        HERMES, ['<tool_call>{"name": "add", "arguments": {"a": \'x\'}}</tool_call>']
    )

    assert calls == [("add", '{"a": ')]
    assert text == "'x'}}</tool_call>"


def test_a_json_answer_of_llamas_is_not_held_until_its_end():
    parser = ToolCallParser(LLAMA, ["add"])

    pieces = [piece for chunk in ['{"', "answer", '": "lo'] for piece in parser.feed(chunk)]

    assert "".join(piece.text for piece in pieces) == '{"answer": "lo'


def test_only_one_call_comes_if_only_one_is_allowed():
    parser = ToolCallParser(HERMES, ["add"], parallel=False)

    parser.feed('<tool_call>{"name": "add", "arguments": {}}')

    assert parser.is_done
    assert all(piece.kind is Kind.MARKUP for piece in parser.feed("</tool_call> and more"))


@pytest.mark.parametrize(
    ("tool_format", "said", "kept"),
    [
        (HERMES, "Let me.\n<tool_c", "Let me."),
        (HERMES, "<tool_call>", ""),
        (HERMES, '<tool_call>\n{"na', ""),
        (HERMES, '<tool_call>{"name": "add", "argum', ""),
        (HERMES, '<tool_call>{"arguments": {"a": 1}, "id": "' + "x" * 600, ""),
        (HERMES, '<tool_call>{"name": "add", "arguments": {}}</tool_call><tool_call>{"', ""),
        (LLAMA, '<|python_tag|>{"', ""),
        (LLAMA, '{"name": "ad', ""),
        (LLAMA, '{"name": "add", "parameters": {}}; {', ""),
        (MISTRAL, "[TOOL_CALLS][{", ""),
        (MISTRAL, "[TOOL_CALLS]ad", ""),
        (HERMES, "is 5 <", "is 5 <"),
        (HERMES, "a blank \n", "a blank \n"),
        (HERMES, '<tool_call>{"name": "other"', '<tool_call>{"name": "other"'),
        (LLAMA, '{"type": "report", "id"', '{"type": "report", "id"'),
        (MISTRAL, "[TOOL_CALLS]nothing at all", "[TOOL_CALLS]nothing at all"),
    ],
)
def test_a_calls_head_that_a_limit_cuts_off_is_no_text(
    tool_format: ToolFormat, said: str, kept: str
):
    parser = ToolCallParser(tool_format, ["add"])

    pieces = [*parser.feed(said), *parser.flush(is_cut=True)]

    assert "".join(piece.text for piece in pieces if piece.kind is Kind.TEXT) == kept
    assert "".join(piece.text for piece in pieces) == said


@pytest.mark.parametrize(
    ("tool_format", "said"), [(HERMES, "<"), (HERMES, "\n"), (LLAMA, '{"id'), (MISTRAL, "[")]
)
def test_of_an_answer_that_must_be_a_call_no_beginning_is_text(tool_format: ToolFormat, said: str):
    parser = ToolCallParser(tool_format, ["add"], forced=True)

    assert parser.feed(said) == []
    assert parser.flush(is_cut=True) == (Piece(Kind.MARKUP, said),)


def test_ids_look_as_openais():
    ids = {new_call_id() for _ in range(100)}

    assert len(ids) == 100
    assert all(re.fullmatch("call_[A-Za-z0-9]{24}", one) for one in ids)


@pytest.mark.parametrize("tool_format", list(ToolFormat))
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "unit",
    [
        "[a(", "<tool_call>", '<tool_call>{"', '<tool_call>{"name":"', "[TOOL_CALLS]",
        "[TOOL_CALLS][{",
        '[TOOL_CALLS]add[ARGS]{"a":"', '{"name": "add", "parameters": {"a": "', "<|python_tag|>{",
        '"\\', "{", "[TOOL_CALLS]a[", '__import__("os").system("true")', " ", "\n<",
    ],
)  # fmt: skip
def test_a_hundred_kilobytes_of_anything_take_linear_time(
    tool_format: ToolFormat, unit: str, at_once: bool
):
    size = 200_000 if at_once else 16
    text = '{"name": "add", ' * (tool_format is LLAMA) + unit * (100_000 // len(unit))
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    started = time.thread_time()

    pieces, _, _ = parse(tool_format, chunks)

    assert "".join(piece.text for piece in pieces) == text
    assert time.thread_time() - started < 2
