import pytest

from engines.modelfile_text import ModelfileInvalid, instructions


def values(text: str) -> list[tuple[str, str, str]]:
    return [(said.name, said.head, said.value) for said in instructions(text)]


def test_a_quoted_text_keeps_its_empty_lines_and_spaces() -> None:
    found = values('FROM x  \nSYSTEM """first  \n\n\nlast  \n"""  \nTEMPLATE "a \nb"\n')

    assert found == [
        ("FROM", "", "x"),
        ("SYSTEM", "", "first  \n\n\nlast  \n"),
        ("TEMPLATE", "", "a \nb"),
    ]


def test_a_word_stands_before_the_value_of_some() -> None:
    assert values('parameter stop  "a b"\nMessage user hi there') == [
        ("PARAMETER", "stop", "a b"),
        ("MESSAGE", "user", "hi there"),
    ]


def test_any_blank_stands_between_words() -> None:
    found = values("FROM\tx\nPARAMETER\ttemperature\t0.3\nMESSAGE user\thi  there")

    assert found == [
        ("FROM", "", "x"),
        ("PARAMETER", "temperature", "0.3"),
        ("MESSAGE", "user", "hi  there"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Say "hi"', 'Say "hi"'),
        ('"Say "hi""', 'Say "hi"'),
        ('"""Say "hi""""', 'Say "hi"'),
        ('"""a\n"b"\n"c""""', 'a\n"b"\n"c"'),
        ('"a """ b"', 'a """ b'),
        ('"a\n"', "a\n"),
        ('""', ""),
        ('""""""', ""),
        ('"""""\n"""', '""\n'),
        ('"""a"""  ', "a"),
    ],
)
def test_quotes_end_where_a_line_ends_with_what_they_began_with(text: str, value: str) -> None:
    assert values(f"SYSTEM {text}\nFROM x") == [("SYSTEM", "", value), ("FROM", "", "x")]


def test_lines_end_with_a_line_feed_and_nothing_else() -> None:
    odd = "a\u2028b\u2029c\fd\x0be\x85f\x1cg\rh\r\ni"

    assert values(f'FROM x\nSYSTEM """{odd}"""\nPARAMETER stop "\r\n"') == [
        ("FROM", "", "x"),
        ("SYSTEM", "", odd),
        ("PARAMETER", "stop", "\r\n"),
    ]


def test_a_file_with_line_ends_of_windows_has_them_everywhere() -> None:
    assert values('FROM x\r\n\r\n# c\r\nSYSTEM """a\r\n\u2028b"""\r\nLICENSE "c"\r\n') == [
        ("FROM", "", "x"),
        ("SYSTEM", "", "a\n\u2028b"),
        ("LICENSE", "", "c"),
    ]


def test_a_carriage_return_at_the_end_of_a_plain_line_is_no_part_of_it() -> None:
    assert values("FROM x\nSYSTEM hi\r\nLICENSE MIT\r\n\r\n") == [
        ("FROM", "", "x"),
        ("SYSTEM", "", "hi"),
        ("LICENSE", "", "MIT"),
    ]


def test_a_long_text_is_read_in_one_go() -> None:
    [(_, _, value)] = values('SYSTEM """' + "\n" * 1_000_000 + '"""')

    assert len(value) == 1_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SYSTEM\r\nFROM x", "line 1 of the Modelfile: SYSTEM has no value"),
        ("FROM x\nPARAMETER\ttop_k", "line 2 of the Modelfile: PARAMETER has no value"),
        ("FROM x\nSYSTM y", "line 2 of the Modelfile: there is no instruction 'SYSTM' (FROM, "),
        ("FROM  ", "line 1 of the Modelfile: FROM has no value"),
        ('SYSTEM """a\nb', "line 1 of the Modelfile: SYSTEM has a quotation that does not end"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ModelfileInvalid) as refused:
        values(text)
    assert str(refused.value).startswith(said)
