from gateway.parity.excerpt import beginning, ending, first_difference, visible


def test_what_would_steer_a_terminal_is_shown_as_its_escape() -> None:
    assert visible("a\x1b[31mred\nnaïve 東京 🌍\u202e") == r"a\x1b[31mred\nnaïve 東京 🌍\u202e"


def test_long_texts_are_cut_and_say_so() -> None:
    assert beginning("abcdef", 3) == "‘abc…’"
    assert ending("abcdef", 3) == "‘…def’"
    assert ending("") == "the beginning"


def test_the_first_difference_of_a_text_and_its_beginning_is_its_end() -> None:
    assert first_difference("abc", "abd") == 2
    assert first_difference("abc", "ab") == 2
    assert first_difference("", "x") == 0
