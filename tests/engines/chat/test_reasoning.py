import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.chat.reasoning import ReasoningSplitter
from tests.engines.chat.answers import cut, cuts, pieces_joined

fragments = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<thi", "nk>", "</", "\n", "  ", "hm", "yes", "<", ">", " " * 70]
    ),
    max_size=12,
).map("".join)


def split(chunks: list[str], *, starts: bool = False) -> list[tuple[str, str]]:
    splitter = ReasoningSplitter(starts_in_reasoning=starts)
    pieces = [piece for chunk in chunks for piece in splitter.feed(chunk)]
    return pieces_joined([*pieces, *splitter.flush()])


@given(text=fragments, places=cuts, starts=st.booleans())
def test_any_chunking_gives_the_same_pieces(text: str, places: list[int], starts: bool):
    assert split(cut(text, places), starts=starts) == split([text] if text else [], starts=starts)


@given(text=fragments, places=cuts, starts=st.booleans())
def test_nothing_is_lost(text: str, places: list[int], starts: bool):
    assert "".join(part for _, part in split(cut(text, places), starts=starts)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", {"TEXT": "hello"}),
        ("<think>hm</think>yes", {"REASONING": "hm", "TEXT": "yes"}),
        ("\n<think>\n hm\n\n</think>\n\n yes\n", {"REASONING": "hm", "TEXT": "yes\n"}),
        ("<think>\n\n</think>\n\nyes", {"TEXT": "yes"}),
        ("<think>hm, never ends ", {"REASONING": "hm, never ends "}),
        ("first <think>hm", {"TEXT": "first ", "REASONING": "hm"}),
        ("a stray </think> tag", {"TEXT": "a stray </think> tag"}),
        ("<think>a</think>write <think> here", {"REASONING": "a", "TEXT": "write <think> here"}),
        ("  two blanks", {"TEXT": "  two blanks"}),
        ("1 < 2 <thin", {"TEXT": "1 < 2 <thin"}),
    ],
)
def test_the_block_is_split_off(text: str, expected: dict[str, str]):
    came = {kind: part for kind, part in split(list(text)) if kind != "MARKUP"}

    assert came == expected


def test_an_answer_may_begin_inside_the_block():
    pieces = split(["hm</thi", "nk>\n\nyes"], starts=True)

    assert pieces == [("REASONING", "hm"), ("MARKUP", "</think>\n\n"), ("TEXT", "yes")]


def test_it_says_when_the_model_is_thinking():
    splitter = ReasoningSplitter()

    assert not splitter.is_reasoning
    splitter.feed("<think>hm")
    assert splitter.is_reasoning
    splitter.feed("</think>yes")
    assert not splitter.is_reasoning


@pytest.mark.parametrize("unit", [" ", "<", "<think", "</think", "\n<"])
def test_text_that_nearly_is_a_tag_takes_linear_time(unit: str):
    started = time.thread_time()

    pieces = split(list(unit * (30_000 // len(unit))), starts=True)

    assert sum(len(part) for _, part in pieces) == 30_000 // len(unit) * len(unit)
    assert time.thread_time() - started < 2
