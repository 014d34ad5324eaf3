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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM x\nSYSTM y", "line 2 of the Modelfile: there is no instruction 'SYSTM' (FROM, "),
        ("FROM  ", "line 1 of the Modelfile: FROM has no value"),
        ('SYSTEM """a\nb', "line 1 of the Modelfile: SYSTEM has a quotation that does not end"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ModelfileInvalid) as refused:
        values(text)
    assert str(refused.value).startswith(said)
