import pytest

from engines.chat.call_object import MAX_HEADER, is_decided, may_be_call, read_call, read_header


def test_the_header_is_read_as_soon_as_the_arguments_begin():
    text = '>{"name": "add", "arguments": {'

    assert read_header(text, 1) == ("add", 30)
    assert read_header(text[:-1], 1) is None
    assert read_header('{ "name" : "a\\u0064d" ,\n"parameters": {', 0) == ("add", 38)


def test_a_header_longer_than_the_bound_is_none():
    text = '{"name":' + " " * MAX_HEADER + '"add", "arguments": {'

    assert read_header(text, 0) is None


@pytest.mark.parametrize(
    "text", ["{", '{ "na', '{"name": "ad', '{"name": "add", ', '{"arguments": {', '{"id"']
)
def test_these_may_become_calls(text: str):
    assert may_be_call(text, 0, {"add"})


@pytest.mark.parametrize("text", ["{}", "{a", '{"answer', '{"nam"', '{"name": "sub"', "{1"])
def test_these_are_not_waited_for(text: str):
    assert not may_be_call(text, 0, {"add"})


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ('{"arguments": {"a": "é"}, "name": "add"}', ("add", '{"a": "é"}')),
        ('{"name": "add"}', ("add", "{}")),
        ('{"name": "add", "arguments": "{\\"a\\": 1}"}', ("add", '{"a": 1}')),
        ('{"name": "add", "arguments": ""}', ("add", "{}")),
        ('{"type": "function", "function": {"name": "add", "parameters": {}}}', ("add", "{}")),
        ('{"name": "add", "arguments": [1]}', None),
        ('{"name": "add", "arguments": "x"}', None),
        ('{"name": 1}', None),
        ('{"name": }', None),
    ],
)
def test_a_whole_object_is_read_in_any_order(text: str, call: tuple[str, str] | None):
    assert read_call(text) == call


def test_an_object_is_decided_when_it_ends_or_breaks():
    assert is_decided('x{"a": 1}', 1)
    assert is_decided("{<", 0)
    assert not is_decided('{"a": "}', 0)
