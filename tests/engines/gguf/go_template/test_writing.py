"""Go templates said in jinja: what Go's text/template would print, worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.chat.template import ChatTemplate
from engines.gguf.go_template.syntax import CannotTranslate
from engines.gguf.go_template.writing import to_jinja
from engines.protocol import Message, Text, Tool, ToolCall

WEATHER = Tool(
    name="weather",
    description="of a city",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
        "required": ["city"],
    },
)
CALL = ToolCall(id="c1", name="weather", arguments='{"city": "Oslo"}')


def said(*turns: tuple[str, str]) -> list[Message]:
    return [Message(role=role, parts=(Text(text),)) for role, text in turns]


def rendered(source: str, messages: list[Message], **how: object) -> str:
    return ChatTemplate(to_jinja(source)).render(messages, **how).text  # type: ignore[arg-type]


USER = said(("user", "hi"))
TALK = said(("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "bye"))

TURNS = """{{ if .System }}[S]{{ .System }}[/S]
{{ end }}{{ if .Prompt }}[U]{{ .Prompt }}[/U]
{{ end }}[A]{{ .Response }}[/A]
"""


def test_a_template_of_one_turn_is_gone_through_for_each() -> None:
    assert rendered(TURNS, USER) == "[U]hi[/U]\n[A]"
    assert rendered(TURNS, TALK) == ("[S]be kind[/S]\n[U]hi[/U]\n[A]hello[/A]\n[U]bye[/U]\n[A]")


S, U, A = (lambda text, role=role: (role, text) for role in ("system", "user", "assistant"))


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([U("1"), U("2")], "[U]1\n\n2[/U]\n[A]"),
        ([S("1"), S("2"), U("q")], "[S]1\n\n2[/S]\n[U]q[/U]\n[A]"),
        ([U("q"), A("1"), A("2"), U("r")], "[U]q[/U]\n[A]1\n\n2[/A]\n[U]r[/U]\n[A]"),
        ([U("q"), A("so")], "[U]q[/U]\n[A]so"),
        ([U("q"), A("1"), A("2")], "[U]q[/U]\n[A]1\n\n2"),
        ([A("hello"), U("q")], "[A]hello[/A]\n[U]q[/U]\n[A]"),
        ([U("q"), S("s"), U("r")], "[U]q[/U]\n[A][/A]\n[S]s[/S]\n[U]r[/U]\n[A]"),
        ([U("q"), A(""), U("r")], "[U]q[/U]\n[A][/A]\n[U]r[/U]\n[A]"),
        ([U("q"), ("tool", "t"), U("r")], "[U]q[/U]\n[A][/A]\n[U]r[/U]\n[A]"),
        ([S("s")], "[S]s[/S]\n[A]"),
        ([], "[A]"),
    ],
)
def test_no_message_of_a_role_that_a_turn_knows_is_lost(
    turns: list[tuple[str, str]], expected: str
) -> None:
    assert rendered(TURNS, said(*turns)) == expected


def test_a_turn_without_a_response_ends_where_it_would_begin() -> None:
    assert rendered("{{ .System }}|{{ .Prompt }}|", USER) == "|hi|"


def test_what_follows_the_response_in_a_condition_is_left_out_of_the_last_turn() -> None:
    source = "{{ .Prompt }}:{{ if .Response }}{{ .Response }}!{{ end }}"

    assert rendered(source, TALK) == "hi:hello!bye:"
    assert rendered(source, TALK[:3]) == "hi:hello"


def test_what_a_function_prints_behind_the_response_is_left_out_of_the_last_turn() -> None:
    source = '{{ .Prompt }}{{ print ":" .Response "!" }}|'

    assert rendered(source, TALK) == "hi:hello!|bye:"
    assert rendered(source, TALK[:3]) == "hi:hello"


MESSAGES = """{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if eq .Role "system" }}<s>{{ .Content }}</s>
{{- else if or (eq .Role "user") (eq .Role "tool") }}<u>{{ .Content }}</u>
{{- if $last }}<a>{{ end }}
{{- else }}<a>{{ .Content }}{{ range .ToolCalls }}{{ .Function.Name }}={{ .Function.Arguments }}
{{- end }}{{ if not $last }}</a>{{ end }}
{{- end }}
{{- end }}"""


def test_a_template_of_whole_conversations_goes_through_the_messages() -> None:
    assert rendered(MESSAGES, TALK) == "<s>be kind</s><u>hi</u><a>hello</a><u>bye</u><a>"


def test_neighbours_of_one_role_are_one_message() -> None:
    turns = [S("1"), S("2"), U("3"), U("4"), A("5"), A("6"), ("tool", "7"), ("tool", "8")]

    assert rendered(MESSAGES, said(*turns)) == (
        "<s>1\n\n2</s><u>3\n\n4</u><a>5\n\n6</a><u>7</u><u>8</u><a>"
    )
    assert rendered(MESSAGES, said(U("q"), A("s"), A("o"))) == "<u>q</u><a>s\n\no"


def test_calls_of_neighbours_are_all_there() -> None:
    messages = [*USER, *[Message(role="assistant", tool_calls=[CALL])] * 2, *USER]

    assert rendered(MESSAGES, messages).count('weather={"city":"Oslo"}') == 2


def test_tool_calls_and_answers_are_written_as_go_prints_them() -> None:
    messages = [
        *USER,
        Message(role="assistant", tool_calls=[CALL]),
        Message(role="tool", parts=(Text("sunny"),), answers_tool_call="c1", name="weather"),
    ]

    assert rendered(MESSAGES, messages) == (
        '<u>hi</u><a>weather={"city":"Oslo"}</a><u>sunny</u><a>'
    )


def test_tools_are_printed_as_json_and_taken_apart() -> None:
    source = (
        "{{ range .Tools }}{{ .Function.Name }}: {{ .Function.Description }}"
        "{{ range $name, $p := .Function.Parameters.Properties }} {{ $name }}={{ $p.Type }}"
        "{{ range $p.Enum }},{{ . }}{{ end }}{{ end }}\n{{ . }}\n{{ end }}"
        "{{ range .Messages }}{{ .Content }}{{ end }}"
    )

    first, second, last = rendered(source, USER, tools=[WEATHER]).split("\n")

    assert first == "weather: of a city city=string,Rome,Oslo"
    assert second == (
        '{"type":"function","function":{"name":"weather","description":"of a city","parameters":'
        '{"type":"object","properties":{"city":{"type":"string","enum":["Rome","Oslo"]}},'
        '"required":["city"]}}}'
    )
    assert last == "hi"


def test_nil_has_no_length_and_nothing_to_go_through() -> None:
    source = (
        "{{ len .Tools }}{{ range .Tools }}x{{ else }}none{{ end }}{{ range .Messages }}{{ end }}"
    )

    assert rendered(source, USER) == "0none"


def test_the_system_message_is_known_everywhere_and_several_are_joined() -> None:
    inside = "{{ if eq .Role `user` }}{{ $.System }}/{{ .Content }};{{ end }}"
    source = "{{ range .Messages }}" + inside + "{{ end }}"
    messages = said(("system", "be kind"), ("user", "hi"), ("system", "be brief"), ("user", "ho"))

    assert rendered(source, messages) == "be kind\n\nbe brief/hi;be kind\n\nbe brief/ho;"


def test_a_variable_that_is_set_in_a_loop_keeps_its_value() -> None:
    source = (
        '{{ $at := -1 }}{{ range $i, $m := .Messages }}{{ if eq $m.Role "user" }}{{ $at = $i }}'
        "{{ end }}{{ end }}last user: {{ $at }}"
    )

    assert rendered(source, TALK) == "last user: 3"


def test_a_variable_declared_inside_is_another_one() -> None:
    source = "{{ $x := 1 }}{{ range .Messages }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}"

    assert rendered(source, USER) == "21"


def test_a_variable_that_became_a_message_has_its_fields() -> None:
    source = (
        '{{ $last := "" }}{{ range .Messages }}{{ $last = . }}{{ end }}'
        "{{ $last.Role }}: {{ $last.Content }}"
    )

    assert rendered(source, TALK) == "user: bye"


def test_calls_of_no_message_are_never_there() -> None:
    # So templates show how calls are written, for whoever looks through them for that.
    source = "{{ if .ToolCalls }}<tool_call>{{ end }}{{ range .Messages }}{{ .Content }}{{ end }}"

    assert rendered(source, USER) == "hi"


def test_with_and_else_if_and_breaks_mean_what_they_mean_in_go() -> None:
    source = (
        "{{ range .Messages }}{{ with .Content }}<{{ . }}>{{ else }}empty{{ end }}"
        '{{ if eq .Content "hello" }}{{ break }}{{ else if eq .Content "hi" }}{{ continue }}'
        "{{ else }}.{{ end }}{{ end }}"
    )

    assert rendered(source, TALK) == "<be kind>.<hi><hello>"


@pytest.mark.parametrize(
    ("action", "printed"),
    [
        ("{{ and 1 0 2 }}", "0"),
        ("{{ or 0 3 2 }}", "3"),
        ('{{ print "a" "b" 1 }}', "ab1"),
        ("{{ eq 3 1 2 3 }}{{ ne 1 1 }}", "truefalse"),
        ("{{ not (lt 1 2) }}{{ le 2 2 }}{{ gt 1 2 }}{{ ge 1 2 }}", "falsetruefalsefalse"),
        ("{{ index .Messages 0 | json | len | lt 10 }}", "true"),
        ('{{ "hi" | print | len }}', "2"),
        ("{{/* nothing */}}x{{- /* less */ -}}  y", "xy"),
        ("a  {{- `b` -}}  c {{ `d` }} e", "abc d e"),
        ('{{ "tab\\tquote\\"snow\\u2603oct\\101hex\\x41" }}', 'tab\tquote"snow☃octAhexA'),
        ("{{ true }}{{ 1.5 }}{{ -2 }}", "true1.5-2"),
        ("{{ (index .Messages 0).Content }}", "hi"),
        ("{{ slice .System 0 0 }}", ""),
    ],
)
def test_functions_and_values_are_gos(action: str, printed: str) -> None:
    assert rendered(action + "{{ range .Messages }}{{ end }}", USER) == printed


@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_through_as_it_is(text: str) -> None:
    if "{{" in text or text.endswith("{"):
        return
    source = text + "{{ range .Messages }}{{ .Content }}{{ end }}"

    assert rendered(source, said(("user", "{{ 7 * 7 }}{% raw %}"))) == text + "{{ 7 * 7 }}{% raw %}"


@given(text=st.text(alphabet=st.characters(exclude_characters="`\r", exclude_categories=["Cs"])))
def test_any_constant_comes_through_as_it_is(text: str) -> None:
    source = "{{ `" + text + "` }}{{ range .Messages }}{{ end }}"

    assert rendered(source, USER) == text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("no fields at all", "mentions neither .Messages nor .Prompt"),
        ("{{ .Prompt }}{{ .Nope }}", "it uses .Nope, which nothing here stands for"),
        ("{{ range .Messages }}{{ .Nope }}{{ end }}", "it uses .Nope, which a message does not"),
        ("{{ nope .Prompt }}", "it uses the function 'nope'"),
        ("{{ len }}{{ .Prompt }}", "it gives 0 values to 'len'"),
        ("{{ $x }}{{ .Prompt }}", "it uses $x, which it does not declare"),
        ("{{ .Messages }}", "it prints a messages"),
        ('{{ template "x" . }}{{ .Prompt }}', "it uses {{ template }}"),
        ('{{ define "x" }}{{ end }}{{ .Prompt }}', "it uses {{ define }}"),
    ],
)
def test_what_jinja_cannot_say_is_named(source: str, said: str) -> None:
    with pytest.raises(CannotTranslate) as refused:
        to_jinja(source)

    assert said in str(refused.value)
