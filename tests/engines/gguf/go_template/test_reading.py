"""The grammar of Go's templates, and what is no template."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.gguf.go_template.reading import MAX_CHARS, MAX_DEPTH, read_template
from engines.gguf.go_template.syntax import (
    Assign,
    Call,
    CannotTranslate,
    Dot,
    Field,
    If,
    Literal,
    Output,
    Range,
    Text,
    Variable,
)


def test_texts_and_actions_become_nodes() -> None:
    nodes = read_template('a{{ $x := .Y.Z }}{{ if $x }}b{{ else }}{{ print "c" . }}{{ end }}')

    assert nodes == [
        Text("a"),
        Assign("x", Field(Field(Dot(), "Y"), "Z"), declares=True),
        If(Variable("x"), [Text("b")], [Output(Call("print", [Literal("c"), Dot()]))]),
    ]


def test_an_else_if_is_a_condition_that_ends_with_the_first() -> None:
    (node,) = read_template("{{ if 1 }}a{{ else if 2 }}b{{ else }}c{{ end }}")

    inner = If(Literal(2), [Text("b")], [Text("c")])
    assert node == If(Literal(1), [Text("a")], [inner])


def test_a_range_may_name_what_it_goes_through() -> None:
    first, second, third = read_template(
        "{{ range .A }}{{ end }}{{ range $v := .A }}{{ end }}{{ range $k, $v := .A }}{{ end }}"
    )

    over = Field(Dot(), "A")
    assert first == Range(over, "", "", [], [])
    assert second == Range(over, "", "v", [], [])
    assert third == Range(over, "k", "v", [], [])


def test_a_pipeline_gives_its_value_to_the_next_function_last() -> None:
    assert read_template("{{ .A | index .B | len }}") == [
        Output(Call("len", [Call("index", [Field(Dot(), "B"), Field(Dot(), "A")])]))
    ]


def test_dashes_trim_white_space_on_their_side_alone() -> None:
    assert read_template("a \n{{- 1 }} b {{ 2 -}}\n c") == [
        Text("a"),
        Output(Literal(1)),
        Text(" b "),
        Output(Literal(2)),
        Text("c"),
    ]


def test_braces_in_constants_and_comments_end_nothing() -> None:
    assert read_template('{{ "}}" }}{{/* }} */}}{{ `{{ "` }}') == [
        Output(Literal("}}")),
        Output(Literal('{{ "')),
    ]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ .A", "does not end"),
        ("{{ if .A }}x", "a block does not end"),
        ("{{ end }}", "there is nothing for 'end' to end"),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", "does not end"),
        ("{{ if 1 }}{{ else range .A }}{{ end }}", "else 'range' makes no sense"),
        ("{{ (.A }}", "a parenthesis does not end"),
        ("{{ .A ) }}", "makes no sense"),
        ("{{ .A | .B }}", "what is no function"),
        ("{{ | }}", "is no value"),
        ("{{ ; }}", "makes no sense in an action"),
        ('{{ "\\xZZ" }}', "an escape that makes no sense"),
        ('{{ "\\q" }}', "an escape that makes no sense"),
        ('{{ "\\UFFFFFFFF" }}', "an escape that makes no sense"),
        ("{{/* never ends", "does not end"),
        ("x" * (MAX_CHARS + 1), f"over {MAX_CHARS} characters"),
        ("{{ if 1 }}" * 500 + "{{ end }}" * 500, f"deeper than {MAX_DEPTH}"),
        ("{{ " + "(" * 500 + "1" + ")" * 500 + " }}", f"deeper than {MAX_DEPTH}"),
        ("{{ if 1 }}{{ else if 1 }}" * 60, f"deeper than {MAX_DEPTH}"),
    ],
)
def test_what_is_no_template_is_told_why(source: str, said: str) -> None:
    with pytest.raises(CannotTranslate) as refused:
        read_template(source)

    assert said in str(refused.value)
    assert len(str(refused.value)) < 200


@given(st.text(alphabet='{}-/*"`\\ .$a1(|)=:,\n', max_size=200))
def test_nothing_but_a_template_or_a_reason_comes_of_any_text(source: str) -> None:
    with contextlib.suppress(CannotTranslate):
        read_template(source)


@pytest.mark.parametrize(
    "piece", ["{{", "{{-", '{{"', "{{`", "{{/*", "}}", " -", '"\\', "{{ (", "{{.A"]
)
def test_a_hostile_template_costs_one_reading(piece: str) -> None:
    """One that was read again for each of its pieces would take hours."""
    source = (piece * MAX_CHARS)[: MAX_CHARS - 2]

    with pytest.raises(CannotTranslate):
        read_template(source + "{{")
