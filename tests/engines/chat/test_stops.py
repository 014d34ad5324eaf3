import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.chat.stops import StopStrings
from tests.engines.chat.answers import cut, cuts

few_letters = st.text("ab ", max_size=40)
stop_lists = st.lists(st.text("ab ", min_size=1, max_size=5), min_size=1, max_size=5)


def run(stops: list[str], chunks: list[str]) -> tuple[str, str | None]:
    matcher = StopStrings(stops)
    text = ""
    for chunk in chunks:
        safe, matched = matcher.feed(chunk)
        text += safe
        if matched is not None:
            return text, matched
    return text + matcher.flush(), None


def first_complete(stops: list[str], text: str) -> tuple[str, str | None]:
    """The rule, said slowly: the first to be complete wins, then the longest."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            longest = max(matches, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(stops=stop_lists, text=few_letters, places=cuts)
def test_any_chunking_gives_what_the_rule_says(stops: list[str], text: str, places: list[int]):
    assert run(stops, cut(text, places)) == first_complete(stops, text)


@given(stops=stop_lists, text=few_letters, places=cuts)
def test_no_stop_string_is_ever_let_through(stops: list[str], text: str, places: list[int]):
    let_through, _ = run(stops, cut(text, places))

    assert not any(stop in let_through for stop in stops)


@given(stops=stop_lists, text=few_letters)
def test_no_more_is_held_back_than_may_become_a_stop_string(stops: list[str], text: str):
    matcher = StopStrings(stops)

    let_through, matched = matcher.feed(text)

    held = text[len(let_through) :]
    sizes = range(len(text) + 1)
    may_begin = [n for n in sizes if any(s.startswith(text[len(text) - n :]) for s in stops)]
    assert matched is not None or len(held) == max(may_begin)


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["abcde", "bcd"], "xabcdey", ("xa", "bcd")),
        (["b", "ab"], "xab", ("x", "ab")),
        (["aab"], "aaab", ("a", "aab")),
        (["\n\n", "User:"], "one\nUser: two", ("one\n", "User:")),
        (["🦆🦢"], "a 🦆🦢", ("a ", "🦆🦢")),
        ([""], "text", ("text", None)),
        ([], "text", ("text", None)),
    ],
)
def test_overlapping_stop_strings(stops: list[str], text: str, expected: tuple[str, str | None]):
    assert run(stops, list(text)) == expected


def test_a_matcher_begins_anew_after_a_match():
    matcher = StopStrings(["END"])

    assert matcher.feed("one END two") == ("one ", "END")
    assert matcher.feed("E") == ("", None)
    assert matcher.feed("ND") == ("", "END")


def test_a_long_run_that_nearly_matches_takes_linear_time():
    stop = "a" * 2000 + "b"
    started = time.thread_time()

    text, matched = run([stop, "a" * 1500 + "c"], ["a" * 7] * 20_000)

    assert (len(text), matched) == (140_000, None)
    assert time.thread_time() - started < 3
