"""Is what a model wrote JSON, and the JSON that was asked for?

Schemas are checked by the jsonschema package, which knows every draft; see
docs/decisions/0035-jsonschema-judges-answers.md.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from gateway.parity.answer import Answer
from gateway.parity.excerpt import visible

_MAX_SHOWN = 160

Schema = Mapping[str, Any] | bool


def json_problem(body: Mapping[str, Any], answer: Answer) -> str | None:
    """What is wrong with the answer's JSON; empty: nothing. None: no JSON was asked for."""
    schemas = _schemas_of_tools(body)
    if answer.tool_calls:
        problems = [
            f"arguments of {call.name}: {problem}"
            for call in answer.tool_calls
            if (problem := problem_of(call.arguments, schemas.get(call.name, True)))
        ]
        return "; ".join(problems)
    schema = schema_asked_for(body)
    return None if schema is None else problem_of(answer.text, schema)


def schema_asked_for(body: Mapping[str, Any]) -> Schema | None:
    """The schema of the answer that a request wants, whichever field says so; None: any text."""
    wanted = _fields(body.get("response_format"))
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    if wanted.get("type") == "json_schema":
        return cast(Schema, _fields(wanted.get("json_schema")).get("schema", True))
    schema = body.get("guided_json") or _fields(body.get("structured_outputs")).get("json")
    return cast("Schema | None", json.loads(schema) if isinstance(schema, str) else schema)


def problem_of(text: str, schema: Schema) -> str:
    """What is wrong with `text` as JSON of this schema; empty if it is valid."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    try:
        found = _first_error(value, schema)
    except (SchemaError, Unresolvable, RecursionError, re.error) as error:
        return f"the schema cannot be used: {visible(str(error))[:_MAX_SHOWN]}"
    if found is None:
        return ""
    return f"{found.json_path}: {visible(found.message)[:_MAX_SHOWN]}"


def canonical(text: str) -> str:
    """JSON in one spelling, so that key order, spaces and `1.0` make no difference."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _first_error(value: object, schema: Schema) -> ValidationError | None:
    kind: Any = validator_for(schema)
    kind.check_schema(schema)
    # With a registry of its own it fetches nothing that a `$ref` may name.
    registry: Registry[Any] = Registry()
    errors = cast(Iterable[ValidationError], kind(schema, registry=registry).iter_errors(value))
    return min(errors, key=lambda error: len(error.absolute_path), default=None)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_plain(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast(dict[str, Any], value).items()}
    return value


def _schemas_of_tools(body: Mapping[str, Any]) -> Mapping[str, Schema]:
    functions = [_fields(_fields(tool).get("function")) for tool in body.get("tools") or ()]
    return {
        str(function.get("name")): cast(Schema, function.get("parameters") or True)
        for function in functions
    }


def _fields(value: object) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], value) if isinstance(value, Mapping) else {}
