"""The grammar of Modelfiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import RequestRefused
from engines.gguf.modelfile import Modelfile, read_modelfile, write_modelfile
from engines.gguf.recipe import Said
from engines.modelfile_text import Instruction

FULL = '''
# who made it
  from qwen3:0.6b
FROM ./mmproj.gguf
parameter temperature 0.7
PARAMETER stop <|im_start|>
PARAMETER stop "  two words  "
Parameter num_ctx 4096
TEMPLATE """{{ .System }}
{{ .Prompt }}"""
SYSTEM "first"
System """
You are "kind",
  # and this is no comment
"""
ADAPTER ./lora.gguf
LICENSE """MIT"""
LICENSE Apache 2.0
MESSAGE user why is the sky blue?
MESSAGE assistant """Rayleigh
scattering"""
RENDERER qwen3
PARSER qwen3
REQUIRES 0.6.0
'''


def test_every_instruction_is_read_in_any_case() -> None:
    assert read_modelfile(FULL) == Modelfile(
        sources=("qwen3:0.6b", "./mmproj.gguf"),
        parameters={"temperature": 0.7, "stop": ["<|im_start|>", "  two words  "], "num_ctx": 4096},
        template="{{ .System }}\n{{ .Prompt }}",
        system='\nYou are "kind",\n  # and this is no comment\n',
        adapters=("./lora.gguf",),
        licenses=("MIT", "Apache 2.0"),
        messages=(
            Said("user", "why is the sky blue?"),
            Said("assistant", "Rayleigh\nscattering"),
        ),
        renderer="qwen3",
        parser="qwen3",
        requires="0.6.0",
    )


def test_what_is_written_reads_back() -> None:
    modelfile = read_modelfile(FULL)

    assert read_modelfile(write_modelfile(modelfile)) == modelfile


@given(
    system=st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1)
    | st.text(alphabet='"a \n\r\t\u2028', min_size=1)
)
def test_any_text_survives_being_written_or_is_left_out(system: str) -> None:
    modelfile = Modelfile(sources=("x",), system=system, messages=(Said("user", "hi"),))
    could_end_it = any(line.rstrip().endswith('"""') for line in f'"""{system}'.split("\n")[:-1])

    read = read_modelfile(write_modelfile(modelfile))

    assert (read.sources, read.messages) == (modelfile.sources, modelfile.messages)
    assert read.system == system or (read.system is None and could_end_it)


def test_what_no_quotation_can_hold_is_named_and_adds_nothing() -> None:
    modelfile = Modelfile(
        sources=("x",),
        system='"""\nFROM y\n"""',
        parameters={"stop": ['a"""\nb', "c"]},
        messages=(Said("user", 'def f():\n    """\n    doc\n    """\n'),),
    )

    assert write_modelfile(modelfile).splitlines() == [
        "FROM x",
        "# SYSTEM is left out: a line of its text ends with what would end the quotation",
        "# PARAMETER stop is left out: a line of its text ends with what would end the quotation",
        'PARAMETER stop "c"',
        "# MESSAGE user is left out: a line of its text ends with what would end the quotation",
    ]


def test_instructions_that_never_stood_in_a_text_are_understood_as_they_are() -> None:
    system = 'a\u2028b\fc\r\nd """\nFROM y\n"""'
    said = [
        ("FROM", "", "x"),
        ("SYSTEM", "", system),
        ("PARAMETER", "stop", '"\r\n"'),
        ("MESSAGE", "user", 'Say "hi"'),
        ("PARSER", "", ""),
        ("REQUIRES", "", ""),
    ]

    read = read_modelfile([Instruction(0, *one) for one in said])

    assert (read.sources, read.system) == (("x",), system)
    assert read.parameters == {"stop": ['"\r\n"']}
    assert read.messages == (Said("user", 'Say "hi"'),)


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        (("PARAMETER", "top", "1"), "there is no parameter 'top'"),
        (("PARAMETER", "stop", ""), "parameter stop has ''"),
        (("MESSAGE", "tool\nFROM y", "hi"), "MESSAGE has role 'tool\\nFROM y'"),
        (("DRAFT", "", "y"), "DRAFT is not supported"),
        (("SYSTEM", "", "x" * 2**20), "the Modelfile has over 1048576 characters"),
    ],
)
def test_a_mistake_that_stands_in_no_line_is_told_without_one(
    instruction: tuple[str, str, str], said: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        read_modelfile([Instruction(0, "FROM", "", "x"), Instruction(0, *instruction)])

    assert refused.value.message.startswith(said)


def test_line_ends_of_windows_and_a_byte_order_mark_are_no_content() -> None:
    modelfile = read_modelfile('\ufeffFROM x\r\nSYSTEM """a\r\nb"""\r\n')

    assert (modelfile.sources, modelfile.system) == (("x",), "a\nb")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the Modelfile has no FROM"),
        ("SYSTEM x", "the Modelfile has no FROM"),
        ("FROM x\nSYSTM y", "line 2 of the Modelfile: there is no instruction 'SYSTM' (FROM, "),
        ("FROM x\n\n# c\n{{ y }}", "line 4 of the Modelfile: there is no instruction '{{'"),
        ("FROM", "line 1 of the Modelfile: FROM has no value"),
        ('FROM x\nSYSTEM """a\nb\nc', "line 2 of the Modelfile: SYSTEM has a quotation that does"),
        ('FROM x\nSYSTEM "a', "quotation that does not end"),
        ("FROM x\nPARAMETER top 1", "line 2 of the Modelfile: there is no parameter 'top'"),
        ("FROM x\nPARAMETER top_k", "line 2 of the Modelfile: PARAMETER has no value"),
        ("FROM x\nPARAMETER top_k many", "must be a whole number"),
        ("FROM x\nMESSAGE tool hi", "line 2 of the Modelfile: MESSAGE has role 'tool'"),
        ("FROM x\nREQUIRES new", "REQUIRES 'new' is not a version"),
        ("FROM x\nDRAFT y", "line 2 of the Modelfile: DRAFT is not supported"),
        ("FROM x\n" * 400_000, "characters"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        read_modelfile(text)

    assert said in refused.value.message
    assert refused.value.param == "modelfile"
    assert len(refused.value.message) < 400


def test_an_empty_quotation_is_a_value() -> None:
    assert read_modelfile('FROM x\nSYSTEM ""').system == ""
