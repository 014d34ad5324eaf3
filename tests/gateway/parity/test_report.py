import io
import json

from rich.console import Console

from gateway.parity.answer import Answer, CalledTool, Failure
from gateway.parity.compare import Tolerance
from gateway.parity.printing import print_report
from gateway.parity.prompt_set import Prompt
from gateway.parity.report import Heard, Report, report_of, to_json
from gateway.parity.requirements import requirements_of
from tests.gateway.parity.places import answer, prompt, rendered, scored


def report(*others: list[Answer], require: str = "all=1,logprobs=0") -> Report:
    prompts: list[Prompt] = [prompt("greet"), prompt("count")]
    reference = [
        answer("hello", prompt_tokens=3, rendered=rendered("<u> greet"), target="laptop/small",
               first_output_seconds=0.01, tokens_per_second=50.0),
        answer("1, 2", prompt_tokens=5, first_output_seconds=0.03, tokens_per_second=70.0),
    ]  # fmt: skip
    sides = [Heard(name="dev", model="small", answers=reference)]
    sides += [
        Heard(name=f"prod{at}", model="small", answers=each) for at, each in enumerate(others)
    ]
    return report_of(prompts, sides, requirements_of([require]), Tolerance())


SAME = [
    answer("hello", prompt_tokens=3, rendered=rendered("<u> greet")),
    answer("1, 2", prompt_tokens=5),
]
OTHER = [
    answer("hello", prompt_tokens=4, rendered=rendered("<u> greet <a>")),
    answer("1; 2\x1b[2J", prompt_tokens=5, tool_calls=[CalledTool("f", "{}")]),
]
REFUSED = [Answer(failure=Failure(kind="refused", code="unsupported", message="no"))] * 2


def printed(what: Report, *, verbose: bool = False) -> str:
    console = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    print_report(what, console, verbose=verbose)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_other_side_is_held_against_the_first() -> None:
    found = report(SAME, OTHER)

    assert [comparison.holds for comparison in found.comparisons] == [True, False]
    assert not found.holds


def test_less_than_all_may_be_enough() -> None:
    lenient = "all=0,text=0.5,prompt_tokens=0.5"

    assert report(OTHER, require=lenient).holds
    assert not report(OTHER, require=f"{lenient},prompt=0.5").holds


def test_sides_that_both_refuse_everything_are_not_shown_to_be_equal() -> None:
    sides = [Heard(name=name, model="m", answers=REFUSED) for name in ("dev", "prod")]
    prompts = [prompt("greet"), prompt("count")]

    found = report_of(prompts, sides, requirements_of([]), Tolerance())

    assert all(share.holds for share in found.comparisons[0].shares)
    assert not found.holds
    assert "no prompt was answered on both sides" in printed(found)


def test_the_table_shows_both_sides_where_they_differ() -> None:
    text = printed(report(OTHER))

    row = next(line for line in text.splitlines() if line.startswith("greet"))
    assert "3 | 4" in row
    assert "≠" in row
    assert "prompt: token 2, after ‘<u> greet’: the end | [ <a>]" in text
    assert "text: character 1, after ‘1’: ‘, 2’ | " in text
    assert "they differ in prompt, prompt_tokens, text" in text


def test_log_probabilities_that_differ_are_no_news_unless_they_are_required() -> None:
    def scores(logprob: float) -> list[Answer]:
        return [answer("hello", logprobs=scored(("hello", logprob))), answer("1, 2")]

    sides = [Heard(name="dev", model="m", answers=scores(-0.1))]
    sides += [Heard(name="prod", model="m", answers=scores(-0.9))]
    texts = [
        printed(report_of([prompt("greet"), prompt("count")], sides, requirements_of(require),
                          Tolerance()))
        for require in ([], ["logprobs=1"])
    ]  # fmt: skip

    assert ["differ by up to 0.8000 nats" in text for text in texts] == [False, True]
    assert "as equal as required" in texts[0]


def test_a_models_words_do_not_steer_the_terminal() -> None:
    assert "\x1b" not in printed(report(OTHER), verbose=True)


def test_what_is_equal_is_said_in_few_lines_and_in_full_if_wanted() -> None:
    short, long = printed(report(SAME)), printed(report(SAME), verbose=True)

    assert "as equal as required" in short
    assert "[<u>][ greet]" not in short
    assert "dev: 2 of 2 answered by laptop/small; first output after 20 ms, 60 tokens/s" in short
    assert long.count("[<u>][ greet]") == 2
    assert "text: 1, 2" in long


def test_the_json_file_holds_what_was_found() -> None:
    content = json.loads(to_json(report(OTHER)))

    (comparison,) = content["comparisons"]
    first, second = content["prompts"]
    assert (content["version"], content["holds"]) == (1, False)
    assert content["sides"][0] == {
        "name": "dev", "model": "small", "targets": ["laptop/small"], "answered": 2,
        "first_output_seconds": 0.02, "tokens_per_second": 60.0,
    }  # fmt: skip
    assert comparison["aspects"]["prompt"] == {
        "agreeing": 0, "compared": 1, "required": 1.0, "holds": False,
    }  # fmt: skip
    assert first["findings"][0]["prompt_tokens"]["detail"] == "3 | 4"
    assert first["answers"][1]["rendered"]["tokens"][-1]["text"] == " <a>"
    assert second["answers"][1]["tool_calls"] == [{"name": "f", "arguments": "{}"}]
    assert second["body"]["messages"][0]["content"] == "count"
