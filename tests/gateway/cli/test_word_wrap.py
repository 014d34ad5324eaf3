import re

import pytest

from gateway.cli.word_wrap import WordWrap

TEXT = "some words that are longer than a narrow terminal is wide"


def on_screen(printed: str) -> list[str]:
    """The lines of a terminal that understands two movements: back, and erase to the end."""
    lines, column = [""], 0
    for piece in re.findall(r"\x1b\[\d*[DK]|.", printed, re.DOTALL):
        if piece == "\n":
            lines.append("")
            column = 0
        elif piece.endswith("D") and piece[0] == "\x1b":
            column -= int(piece[2:-1])
        elif piece == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column] + piece
            column += 1
    return lines


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_lines_end_between_words_however_the_text_comes(size: int) -> None:
    wrap = WordWrap(20)

    printed = "".join(wrap.add(TEXT[at : at + size]) for at in range(0, len(TEXT), size))

    assert [line.rstrip() for line in on_screen(printed)] == [
        "some words that are", "longer than a", "narrow terminal is", "wide",
    ]  # fmt: skip


def test_nothing_is_held_back() -> None:
    assert WordWrap(20).add("hal") == "hal"


def test_lines_of_the_text_itself_are_kept() -> None:
    assert on_screen(WordWrap(20).add("one\n\n  two\nthree")) == ["one", "", "  two", "three"]


def test_a_word_that_is_longer_than_a_line_is_cut() -> None:
    assert on_screen(WordWrap(11).add("see " + "x" * 25)) == ["see ", "x" * 10, "x" * 10, "x" * 5]


def test_wide_characters_take_two_columns_and_break_anywhere() -> None:
    assert on_screen(WordWrap(11).add("你好世界你好世界")) == ["你好世界你", "好世界"]
