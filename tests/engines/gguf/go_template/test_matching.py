"""Which of a model's two chat templates is used, and what is told of the other."""

import pytest

from engines.errors import RequestRefused
from engines.gguf.go_template.matching import check_syntax, check_template, chosen_template
from tests.gguf_files import CHATML

CHATML_TURNS = """{{ if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>
"""
OTHER = "{{ if .System }}{{ .System }} {{ end }}USER: {{ .Prompt }} ASSISTANT: {{ .Response }}</s>"
ODD = "{{ odd .Prompt }}"


def test_without_a_go_template_the_files_own_is_used() -> None:
    assert chosen_template("", CHATML).source == CHATML
    assert chosen_template(" \n", None).source is None


def test_if_both_say_the_same_it_is_the_files_own_which_knows_of_tools() -> None:
    choice = chosen_template(CHATML_TURNS, CHATML)

    assert (choice.source, choice.note, choice.problem) == (CHATML, "", "")


def test_if_they_differ_somebody_wanted_the_go_template() -> None:
    choice = chosen_template(OTHER, CHATML)

    assert choice.source not in (None, CHATML)
    assert "USER: " in (choice.source or "")


def test_a_go_template_without_a_counterpart_gives_way_and_that_is_told() -> None:
    choice = chosen_template(ODD, CHATML)

    assert choice.source == CHATML
    assert choice.note == (
        "the TEMPLATE cannot be used (it uses the function 'odd'): the model's own chat template is"
    )
    assert check_template(ODD, CHATML) == choice.note


@pytest.mark.parametrize("mistake", ["{{ .Foo", "{{ if .Prompt }}", "{{ end }}", "{{ $x }}"])
def test_a_mistake_is_refused_and_what_is_only_unknown_here_is_not(mistake: str) -> None:
    with pytest.raises(RequestRefused, match="the TEMPLATE has a mistake: ") as refused:
        check_syntax("{{ .Prompt }}" + mistake)
    assert refused.value.param == "modelfile"

    for fine in ("", OTHER, ODD, "{{ 'x' }}", '{{ define "x" }}', "no fields", "{{ .A | .B }}"):
        check_syntax(fine)
    assert chosen_template("{{ .Prompt }}" + mistake, CHATML).source == CHATML  # one that is there


def test_with_neither_there_is_no_chat_and_a_reason() -> None:
    choice = chosen_template(ODD, None)

    assert choice.source is None
    assert "it uses the function 'odd'" in choice.problem
    assert "give it another TEMPLATE, or use it for completions" in choice.problem
    with pytest.raises(RequestRefused, match="this model cannot chat: ") as refused:
        check_template(ODD, None)
    assert refused.value.param == "modelfile"


def test_a_broken_template_of_the_file_is_no_choice() -> None:
    assert "USER: " in (chosen_template(OTHER, "{% if %}").source or "")
    assert chosen_template(ODD, "{% if %}").source is None
