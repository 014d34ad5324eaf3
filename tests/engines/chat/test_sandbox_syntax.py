import pytest
from jinja2 import nodes
from jinja2.exceptions import SecurityError

from engines.chat.sandbox import Sandbox
from engines.chat.sandbox_syntax import Metering, refuse_unbounded


def filters_in(source: str) -> list[str]:
    tree = Sandbox().parse(source)
    Metering().visit(tree)
    return sorted(node.name for node in tree.find_all(nodes.Filter))


@pytest.mark.parametrize(
    ("source", "filters"),
    [
        ("{% for x in y %}{% endfor %}", ["_turns"]),
        ("{{ a ~ b }}", ["_concat"]),
        ("{{ a[1:] }}", ["_held"]),
        ("{{ [a] }}{{ (a, 1) }}{{ {'k': a} }}", ["_held", "_held", "_held"]),
        ("{{ [1] }}{{ ('a', 'b') }}{{ {'k': 1} }}{{ a[1] }}", []),
        ("{{ a == b != 1 }}{{ a == 'b' }}{{ 'a' in b }}", ["_stepped", "_stepped"]),
        ("{% for a, b in y %}{% endfor %}{% set a, b = c %}", ["_turns"]),
    ],
)
def test_what_jinja2_has_no_hook_for_goes_through_a_filter(source: str, filters: list[str]):
    assert filters_in(source) == filters


@pytest.mark.parametrize("source", ["{% include 'x' %}", "{% import 'x' as y %}", "{{ kwargs }}"])
def test_what_cannot_be_bounded_is_refused(source: str):
    with pytest.raises(SecurityError):
        refuse_unbounded(Sandbox().parse(source))
