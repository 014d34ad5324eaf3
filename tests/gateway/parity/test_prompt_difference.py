from engines.rendering import PromptToken, RenderedPrompt
from gateway.parity.prompt_difference import prompt_difference, spelled
from tests.gateway.parity.places import rendered


def test_the_same_tokens_do_not_differ() -> None:
    assert prompt_difference(rendered("<u> hello <a>"), rendered("<u> hello <a>")) == ""


def test_the_first_token_that_differs_is_shown_with_what_comes_before_and_after() -> None:
    difference = prompt_difference(
        rendered("<s> you are kind <u> hello <a>"), rendered("<s> <u> hello <a>")
    )

    assert difference == (
        "token 1, after ‘<s>’: [ you][ are][ kind][ <u>][ hello][ <a>] | [ <u>][ hello][ <a>]"
    )


def test_a_prompt_that_begins_with_another_mark_differs_from_the_beginning() -> None:
    difference = prompt_difference(rendered("<s> hello"), rendered("hello"))

    assert difference == "token 0, after the beginning: [<s>][ hello] | [hello]"


def test_the_same_text_in_other_tokens_is_told_as_that() -> None:
    whole = RenderedPrompt(text="hello", tokens=[PromptToken(9, b"hello")])
    parts = RenderedPrompt(text="hello", tokens=[PromptToken(1, b"hel"), PromptToken(2, b"lo")])

    assert prompt_difference(whole, parts) == (
        "the same text in other tokens, token 0, after the beginning: [hello] | [hel][lo]"
    )


def test_tokens_are_spelled_visibly() -> None:
    tokens = [PromptToken(5, b"a\n"), PromptToken(6, b"\xf0\x9f"), PromptToken(7, b"")]

    assert spelled(tokens) == r"[a\n][#6][#7]"
