"""A report for people: a table for each comparison, and what differs prompt by prompt."""

from collections.abc import Collection

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.parity.answer import Answer
from gateway.parity.aspects import Aspect, Finding
from gateway.parity.excerpt import visible
from gateway.parity.prompt_difference import spelled
from gateway.parity.report import Comparison, Report

_SAME, _DIFFERENT, _NEAR_TIE, _NOTHING = "=", "≠", "~", "·"
# Shown as a mark; numbers and words stand side by side where they differ.
_MARKED = {
    Aspect.PROMPT: "prompt",
    Aspect.TEXT: "text",
    Aspect.REASONING: "thinking",
    Aspect.TOOL_CALLS: "tools",
    Aspect.JSON: "JSON",
}


def print_report(report: Report, console: Console, *, verbose: bool) -> None:
    """Everything: with `verbose` also what is the same, and every prompt and answer whole."""
    for comparison in report.comparisons:
        _print_title(comparison, console)
        console.print(_table(report, comparison))
        _print_details(report, comparison, console, verbose=verbose)
        console.print(_shares(comparison))
        _print_sides(comparison, console)
        _print_verdict(comparison, console)


def _print_title(comparison: Comparison, console: Console) -> None:
    one, two = comparison.reference, comparison.other
    names = f"{visible(one.model)} at {one.name} | {visible(two.model)} at {two.name}"
    console.print(Text(f"\n{names}", style="bold"))


def _table(report: Report, comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("asked", no_wrap=True)
    for heading in _MARKED.values():
        table.add_column(heading, justify="center", no_wrap=True)
    for heading in ("prompt tokens", "tokens", "finish", "first output ms", "tokens/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for at, prompt in enumerate(report.prompts):
        one, two = comparison.reference.answers[at], comparison.other.answers[at]
        found = comparison.findings[at]
        table.add_row(
            Text(visible(prompt.name), style="red" if _differing(comparison, at) else ""),
            *(_mark(found[aspect]) for aspect in _MARKED),
            _both(_count(one.prompt_tokens), _count(two.prompt_tokens)),
            _both(_count(one.completion_tokens), _count(two.completion_tokens)),
            _both(_ending(one), _ending(two)),
            _pair(_milliseconds(one.first_output_seconds), _milliseconds(two.first_output_seconds)),
            _pair(_rate(one.tokens_per_second), _rate(two.tokens_per_second)),
        )
    return table


def _print_details(
    report: Report, comparison: Comparison, console: Console, *, verbose: bool
) -> None:
    for at, prompt in enumerate(report.prompts):
        found = comparison.findings[at]
        differing = _differing(comparison, at)
        if not verbose and not differing:
            continue
        console.print(Text(f"\n{visible(prompt.name)}", style="bold"))
        for aspect, finding in found.items():
            if aspect in differing or (verbose and finding.agrees is not None):
                said = "differs" if finding.agrees is False else "the same"
                _print_line(console, aspect, finding.detail or said, _style(finding))
        if verbose:
            _print_answer(console, comparison.reference.name, comparison.reference.answers[at])
            _print_answer(console, comparison.other.name, comparison.other.answers[at])
    console.print()


def _print_answer(console: Console, name: str, answer: Answer) -> None:
    _print_line(console, f"at {name}", answer.target or "", "bold")
    if answer.rendered is not None:
        _print_line(console, "prompt", spelled(answer.rendered.tokens), "dim")
    if answer.failure is not None:
        _print_line(console, "failure", visible(answer.failure.message), "red")
        return
    if answer.reasoning:
        _print_line(console, "reasoning", visible(answer.reasoning), "")
    for call in answer.tool_calls:
        _print_line(console, "tool call", visible(f"{call.name} {call.arguments}"), "")
    if answer.text:
        _print_line(console, "text", visible(answer.text), "")


def _print_line(console: Console, what: str, text: str, style: str) -> None:
    console.print(Text(f"  {what}: ", style="dim").append(text, style=style))


def _shares(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("aspect", "agree", "of", "required"):
        table.add_column(heading, justify="left" if heading == "aspect" else "right")
    for share in comparison.shares:
        if not share.compared and share.holds:
            continue
        style = "" if share.holds else "red"
        table.add_row(
            Text(share.aspect, style=style),
            Text(str(share.agreeing), style=style),
            Text(str(share.compared), style=style),
            Text(f"{share.required:.0%}" if share.required else "-", style=style),
        )
    return table


def _print_sides(comparison: Comparison, console: Console) -> None:
    console.print()
    for side in (comparison.reference, comparison.other):
        targets = f" by {', '.join(side.targets)}" if side.targets else ""
        first = _milliseconds(side.first_output_seconds)
        rate = _rate(side.tokens_per_second)
        line = (
            f"{side.name}: {side.num_answered} of {len(side.answers)} answered{targets}; "
            f"first output after {first} ms, {rate} tokens/s (medians)"
        )
        console.print(Text(line, style="dim"))


def _print_verdict(comparison: Comparison, console: Console) -> None:
    if comparison.holds:
        console.print(Text("as equal as required", style="green"))
        return
    failed = [share.aspect.value for share in comparison.shares if not share.holds]
    if not comparison.num_answered:
        reason = "no prompt was answered on both sides"
    else:
        reason = f"they differ in {', '.join(failed)}"
    console.print(Text(reason, style="bold red"))


def _differing(comparison: Comparison, at: int) -> Collection[Aspect]:
    """The aspects in which a prompt's answers do not agree.

    Log-probabilities only where they are required: between two engines they never do.
    """
    required = {share.aspect: share.required for share in comparison.shares}
    return [
        aspect
        for aspect, finding in comparison.findings[at].items()
        if finding.agrees is False and (aspect is not Aspect.LOGPROBS or required[aspect] > 0)
    ]


def _mark(finding: Finding) -> Text:
    if finding.agrees is None:
        return Text(_NOTHING, style="dim")
    if finding.is_near_tie:
        return Text(_NEAR_TIE, style="yellow")
    return Text(_SAME) if finding.agrees else Text(_DIFFERENT, style="bold red")


def _style(finding: Finding) -> str:
    if finding.is_near_tie:
        return "yellow"
    return "red" if finding.agrees is False else ""


def _both(one: str, two: str) -> Text:
    """Once if it is the same, else side by side."""
    return Text(one) if one == two else Text(f"{one} | {two}", style="bold red")


def _pair(one: str, two: str) -> Text:
    return Text("-" if one == two == "-" else f"{one} | {two}")


def _ending(answer: Answer) -> str:
    if answer.failure is not None:
        return visible(answer.failure.code)
    return visible(answer.finish_reason or "-")


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0f}"
