"""printf: what Go's fmt would print, worked out by hand."""

import pytest

from engines.chat.template import ChatTemplate
from engines.errors import EngineError
from engines.gguf.go_template.syntax import CannotTranslate
from engines.gguf.go_template.writing import to_jinja
from engines.protocol import Message, Text

USER = [Message(role="user", parts=(Text('say "hi"\n'),))]


def rendered(source: str) -> str:
    return ChatTemplate(to_jinja(source + "{{ range .Messages }}{{ end }}")).render(USER).text


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ('{{ printf "plain" }}', "plain"),
        ('{{ printf "" }}', ""),
        ('{{ printf "%s %s" "a" "b" }}', "a b"),
        ('{{ printf "%d of %v, %v" 1 2 true }}', "1 of 2, true"),
        ('{{ printf "100%%" }}', "100%"),
        ('{{ printf "%5s|%3d|%1s" "ab" 7 "abc" }}', "   ab|  7|abc"),
        ('{{ $n := 4 }}{{ len (printf "a%*s" $n "") }}', "5"),
        ('{{ printf "a%*s" 0 "b" }}', "ab"),
        ('{{ "x" | printf "%s!" }}', "x!"),
        ("{{ range .Messages }}{{ printf `%q` .Content }}{{ end }}", '"say \\"hi\\"\\n"'),
        ("{{ range .Messages }}{{ printf `%s: %s` .Role .Content }}{{ end }}", 'user: say "hi"\n'),
        (
            '{{ $s := "" }}{{ $s = printf "%s%s" $s "x" }}{{ $s = printf "%s%s" $s "y" }}{{ $s }}',
            "xy",
        ),
    ],
)
def test_values_are_put_where_the_pattern_says(action: str, said: str) -> None:
    assert rendered(action) == said


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ('{{ printf "%x" 1 }}', "of which only %s, %d, %v, %q are done"),
        ('{{ printf "%05d" 1 }}', "of which only %s, %d, %v, %q are done"),
        ('{{ printf "%-5s" "a" }}', "of which only %s, %d, %v, %q are done"),
        ('{{ printf "%" }}', "of which only %s, %d, %v, %q are done"),
        ('{{ printf "%s" }}', "fewer values than it has places for"),
        ('{{ printf "%*s" 1 }}', "fewer values than it has places for"),
        ('{{ printf "%s" "a" "b" }}', "more values than it has places for"),
        ("{{ printf .System }}", "a pattern that is no constant"),
        ("{{ printf }}", "a pattern that is no constant"),
        ("{{ printf 1 }}", "a pattern that is no constant"),
        ('{{ printf "%s" .Messages }}', "it prints a messages"),
    ],
)
def test_what_is_not_done_is_named(action: str, said: str) -> None:
    with pytest.raises(CannotTranslate) as refused:
        rendered(action)

    assert said in str(refused.value)


def test_padding_within_padding_has_an_end() -> None:
    nested = '"x"'
    for _ in range(30):
        nested = f'(printf "%9s" {nested})'

    with pytest.raises(CannotTranslate, match="it pads what is too long"):
        rendered("{{ " + nested + " }}")


def test_a_width_makes_no_more_than_a_template_may() -> None:
    with pytest.raises(EngineError, match="not safe to run"):
        rendered('{{ printf "%*s" 9999999999 "" }}')
