import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.endpoints import deciding_pattern, matches, needs_admin


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("openai.chat", ["openai.*"], True),
        ("openai.chat", ["openai.chat"], True),
        ("openai.chat", ["*"], True),
        ("openai.chat", ["anthropic.*"], False),
        ("openai.chat", [], False),
        ("openai.chat", ["openai.ch"], False),
        ("chat-small", ["embed-*"], False),
        ("a[b]?", ["a[b]?"], True),
        ("ab", ["a?"], False),
        ("line\nbreak", ["line*"], True),
    ],
)
def test_a_name_is_allowed_by_a_glob_whose_only_wildcard_is_the_star(
    name: str, patterns: list[str], expected: bool
) -> None:
    assert matches(name, patterns) is expected


@pytest.mark.parametrize("patterns", [["*", "!admin.*"], ["!admin.*", "*"]])
def test_a_denial_wins_whatever_the_order(patterns: list[str]) -> None:
    assert not matches("admin.keys", patterns)
    assert matches("openai.chat", patterns)


def test_the_pattern_that_decided_can_be_named() -> None:
    assert deciding_pattern("openai.chat", ["x", "openai.*", "*"]) == "openai.*"


@given(
    st.text(alphabet="ab", max_size=8),
    st.lists(st.text(alphabet="ab*", max_size=6), min_size=1, max_size=3),
)
def test_globs_match_as_the_same_regular_expression_does(name: str, patterns: list[str]) -> None:
    expected = any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) for pattern in patterns
    )

    assert matches(name, patterns) is expected


def test_a_pattern_of_many_stars_does_not_backtrack() -> None:
    # As a regular expression this one does not end within the test's time limit.
    assert not matches("a" * 200, ["*a" * 60 + "b"])


def test_what_runs_the_gateway_or_changes_models_needs_the_role_admin() -> None:
    assert all(map(needs_admin, ["admin.keys", "ollama.pull", "ollama.blobs", "ollama.delete"]))
    assert not any(map(needs_admin, ["openai.chat", "ollama.chat", "ollama.ps", "administer.x"]))
