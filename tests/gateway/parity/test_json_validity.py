import pytest

from gateway.parity.answer import CalledTool
from gateway.parity.json_validity import canonical, json_problem, problem_of
from tests.gateway.parity.places import answer

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
WANTED = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": WANTED},
        {"guided_json": SCHEMA},
        {"guided_json": '{"type": "object", "required": ["age"]}'},
        {"structured_outputs": {"json": SCHEMA}},
    ],
)
def test_every_field_that_wants_json_is_known(body: dict[str, object]) -> None:
    assert json_problem(body, answer('{"age": 36}')) == ""
    assert "'age' is a required property" in (json_problem(body, answer("{}")) or "")
    assert (json_problem(body, answer('{"age": 3')) or "").startswith("not JSON: ")


def test_any_object_will_do_for_a_json_object() -> None:
    body = {"response_format": {"type": "json_object"}}

    assert json_problem(body, answer("{}")) == ""
    assert json_problem(body, answer("[]")) == "$: [] is not of type 'object'"


def test_where_no_json_is_asked_for_none_is_judged() -> None:
    assert json_problem({}, answer("not json")) is None
    assert json_problem({"response_format": {"type": "text"}}, answer("not json")) is None


def test_arguments_of_a_call_are_held_against_the_tools_parameters() -> None:
    body = {"tools": [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]}

    good = json_problem(body, answer(tool_calls=[CalledTool("f", '{"age": 1}')]))
    bad = json_problem(body, answer(tool_calls=[CalledTool("f", '{"age": "1"}')]))

    assert good == ""
    assert bad == "arguments of f: $.age: '1' is not of type 'integer'"


def test_a_schema_that_cannot_be_used_is_told_and_nothing_is_fetched() -> None:
    assert problem_of("1", {"type": "integr"}).startswith("the schema cannot be used: ")
    remote = {"$ref": "http://127.0.0.1:9/schema.json"}
    assert problem_of("1", remote).startswith("the schema cannot be used: ")
    assert problem_of('"a"', {"pattern": "("}).startswith("the schema cannot be used: ")


def test_the_same_json_has_one_spelling() -> None:
    assert canonical('{"b": 1.0, "a": [true, "é"]}') == canonical('{"a":[true,"\\u00e9"],"b":1}')
    assert canonical('{"a": 1}') != canonical('{"a": true}')
    assert canonical("{not json") == "{not json"
