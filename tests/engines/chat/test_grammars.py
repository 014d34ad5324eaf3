import pytest

from engines.chat.grammars import grammar_of
from engines.errors import RequestRefused
from engines.protocol import Choice, Grammar, JsonObject, JsonSchema, Regex


def test_the_same_constraint_is_the_same_grammar():
    one = JsonSchema(schema={"type": "object", "properties": {"a": {}, "b": {}}})
    same = JsonSchema(schema={"type": "object", "properties": {"a": {}, "b": {}}}, name="other")
    turned = JsonSchema(schema={"type": "object", "properties": {"b": {}, "a": {}}})

    assert grammar_of(one, "x", special={}) == grammar_of(same, "x", special={})
    assert grammar_of(one, "x", special={}) != grammar_of(turned, "x", special={})


def test_each_constraint_is_a_grammar_of_its_own():
    constraints = [
        JsonObject(), JsonSchema(schema={}), Regex("a"), Choice(["a", "."]), Grammar('start: "a"'),
    ]  # fmt: skip

    grammars = {grammar_of(constraint, "x", special={}) for constraint in constraints}

    assert len(grammars) == len(constraints)


def test_letters_with_a_meaning_in_patterns_are_text_in_choices():
    assert r"a\\.b|\\&c" in grammar_of(Choice(["a.b", "&c"]), "x", special={})


@pytest.mark.parametrize(
    "constraint", [Regex("\ud800"), Choice(["a", "\udfff"]), Grammar('start: "\ud800"')]
)
def test_half_a_surrogate_pair_is_refused(constraint: Regex | Choice | Grammar):
    with pytest.raises(RequestRefused, match="surrogate") as refused:
        grammar_of(constraint, "x", special={})

    assert refused.value.param == "x"


def test_a_schema_that_nothing_satisfies_is_refused():
    with pytest.raises(RequestRefused, match="the schema is false"):
        grammar_of(JsonSchema(schema=False), "x", special={})
