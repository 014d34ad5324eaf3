"""Says each constraint in the language of the compiler (llguidance)."""

import re
from collections.abc import Mapping

from llguidance import LLMatcher

from engines.chat.constraint_limits import check_choices, check_grammar, check_regex, check_schema
from engines.chat.tool_grammar import JSON_STYLE, ToolConstraint, tool_grammar
from engines.errors import RequestRefused
from engines.protocol import Choice, Constraint, Grammar, JsonObject, JsonSchema, Regex

_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")


def grammar_of(
    constraint: Constraint | ToolConstraint, param: str, *, special: Mapping[str, int]
) -> str:
    """Return the grammar for a constraint that is not too large; whether it is valid is not known.

    `special` has the ids of the tokens that no text matches.
    """
    match constraint:
        case JsonObject():
            return _json_grammar('{"type": "object"}', param, strict=True)
        case JsonSchema():
            if _is_false(constraint):
                raise RequestRefused("the schema is false: nothing satisfies it", param=param)
            schema = check_schema({} if constraint.schema is True else constraint.schema, param)
            return _json_grammar(schema, param, strict=constraint.strict)
        case Regex():
            check_regex(constraint.pattern, param)
            return LLMatcher.grammar_from_regex(_encodable(constraint.pattern, param))
        case Choice():
            check_choices(constraint.choices, param)
            # One pattern, not one rule each: thousands of rules are slow to follow.
            choices = [_SPECIAL.sub(r"\\\g<0>", text) for text in constraint.choices]
            return LLMatcher.grammar_from_regex(_encodable("|".join(choices), param))
        case Grammar():
            check_grammar(constraint.grammar, param)
            return LLMatcher.grammar_from_lark(_encodable(constraint.grammar, param))
        case ToolConstraint():
            return LLMatcher.grammar_from_lark(tool_grammar(constraint, param, special))


def _is_false(constraint: JsonSchema) -> bool:
    """Whether its schema says so, or `not` everything, as draft 4 and zod's `never` spell it.

    Where it is not strict, the compiler passes over a `not`.
    """
    schema = constraint.schema
    return not schema if isinstance(schema, bool) else schema.get("not") in ({}, True)


def _json_grammar(schema: str, param: str, *, strict: bool) -> str:
    try:
        return LLMatcher.grammar_from_json_schema(
            schema,
            overrides={
                "whitespace_flexible": True,
                "whitespace_pattern": str(JSON_STYLE["whitespace_pattern"]),
                "json_allow_general_unicode_escapes": True,
                "lenient": not strict,
            },
        )
    except ValueError as error:  # what its reader of JSON cannot hold
        raise RequestRefused(f"the schema is not valid: {error}", param=param) from None


def _encodable(text: str, param: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RequestRefused(
            "the constraint has half a surrogate pair in it", param=param
        ) from None
    return text
