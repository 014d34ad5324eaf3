"""What an answer must look like: `response_format` and the fields that say the same elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from engines.errors import RequestRefused
from engines.protocol import Choice, Constraint, Grammar, JsonObject, JsonSchema, Regex
from gateway.api.openai.names import check_name
from gateway.errors import BadRequest


class TextFormat(Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    """Any text: the default."""


class JsonObjectFormat(
    Struct, frozen=True, tag_field="type", tag="json_object", forbid_unknown_fields=True
):
    """Some JSON object."""


class SchemaFormat(Struct, frozen=True, forbid_unknown_fields=True):
    """The inside of `response_format.json_schema`."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(
    Struct, frozen=True, tag_field="type", tag="json_schema", forbid_unknown_fields=True
):
    """JSON of this schema."""

    json_schema: SchemaFormat


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`: one of these."""

    json: dict[str, Any] | str | None = None
    json_object: bool | None = None
    choice: list[str] | None = None
    regex: str | None = None
    grammar: str | None = None


def of_response_format(given: ResponseFormat | None) -> Mapping[str, Constraint]:
    """What `response_format` demands; empty where any text will do."""
    if isinstance(given, JsonObjectFormat):
        return {"response_format": JsonObject()}
    if isinstance(given, JsonSchemaFormat):
        inner = given.json_schema
        check_name(inner.name, "response_format.json_schema.name")
        schema = JsonSchema(schema=inner.schema, name=inner.name, strict=bool(inner.strict))
        return {"response_format": schema}
    return {}


def constraint_of(
    *,
    guided_json: dict[str, Any] | str | None = None,
    guided_choice: Sequence[str] | None = None,
    guided_regex: str | None = None,
    guided_grammar: str | None = None,
    structured_outputs: StructuredOutputs | None = None,
) -> Mapping[str, Constraint]:
    """What the extension fields demand, by the field that says so."""
    found: dict[str, Constraint] = {}
    outer = "structured_outputs"
    given = structured_outputs or StructuredOutputs()
    if given.json_object:
        found[f"{outer}.json_object"] = JsonObject()
    for field, schema in (("guided_json", guided_json), (f"{outer}.json", given.json)):
        if schema is not None:
            found[field] = JsonSchema(schema=_schema(schema, field))
    for field, choices in (("guided_choice", guided_choice), (f"{outer}.choice", given.choice)):
        if choices is not None:
            found[field] = Choice(_choices(choices, field))
    for field, pattern in (("guided_regex", guided_regex), (f"{outer}.regex", given.regex)):
        if pattern is not None:
            found[field] = Regex(pattern)
    for field, text in (("guided_grammar", guided_grammar), (f"{outer}.grammar", given.grammar)):
        if text is not None:
            found[field] = Grammar(text)
    return found


def only_one(found: Mapping[str, Constraint]) -> Constraint | None:
    """The one constraint of a request. Raises `BadRequest` when two fields each set one."""
    if len(found) > 1:
        names = list(found)
        raise BadRequest(
            f"{names[0]} and {names[1]} both say what the answer must look like; send one",
            param=names[1],
        )
    return next(iter(found.values()), None)


def blame(error: RequestRefused, found: Mapping[str, Constraint]) -> None:
    """Let an engine's refusal of the constraint name the field that the client wrote."""
    if error.param == "response_format" and found:
        error.param = next(iter(found))


def _schema(given: dict[str, Any] | str, field: str) -> dict[str, Any]:
    if isinstance(given, dict):
        return given
    try:
        return msgspec.json.decode(given, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"{field} is not a JSON Schema object: {error}", param=field) from None


def _choices(given: Sequence[str], field: str) -> Sequence[str]:
    if not given or "" in given:
        raise BadRequest(f"{field} must be a list of texts, none of them empty", param=field)
    return given
