"""What a benchmark found, as tables for people and as JSON for programs.

Latencies are in milliseconds in both. A JSON row is flat, so that rows of many
files can be put into one table; docs/benchmarks.md names its keys.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.bench.plan import Result
from gateway.bench.summary import Ratio, Spread, Summary, ratios_of

# Above this part of its time, the client's own work shows in the figures.
BUSY = 0.7
LATE_SECONDS = 0.010
METRICS: Mapping[str, str] = {
    "first_output": "first output (TTFT)",
    "per_token": "per token (TPOT)",
    "between": "between pieces (ITL)",
    "total": "whole answer (E2E)",
}
_JSON_NAMES = {
    "first_output": "first_output_ms",
    "per_token": "token_ms",
    "between": "between_tokens_ms",
    "total": "answer_ms",
}

# Shown where any subject has them.
_OPTIONAL: Mapping[str, Callable[[Summary], str]] = {
    "total tok/s": lambda s: f"{s.total_tokens_per_second:,.1f}" if s.prompt_tokens else "",
    "cached": lambda s: f"{s.cached_tokens / s.prompt_tokens:.0%}" if s.prompt_tokens else "",
    "good/s": lambda s: "" if s.good_per_second is None else f"{s.good_per_second:.2f}",
    "roofline": lambda s: "" if s.roofline is None else f"{s.roofline:.1%}",
}


def row_of(summary: Summary) -> dict[str, Any]:
    """One run as a flat JSON object."""
    row: dict[str, Any] = {
        "url": summary.subject,
        "load": summary.load,
        "round": summary.round,
        "answers": summary.answers,
        "failures": summary.num_failures,
        "failures_by_kind": dict(summary.failures),
        "first_failure": next(iter(summary.failure_messages.values()), None),
        "unasked": summary.unasked,
        "seconds": round(summary.seconds, 4),
        "requests_per_second": round(summary.requests_per_second, 3),
        "tokens_per_second": round(summary.tokens_per_second, 2),
        "total_tokens_per_second": round(summary.total_tokens_per_second, 2),
        "prompt_tokens": summary.prompt_tokens,
        "cached_tokens": summary.cached_tokens,
        "output_tokens": summary.output_tokens,
        "expected_tokens": summary.expected_tokens,
        "tokens_per_piece": round(summary.tokens_per_piece, 3),
        "answers_without_usage": summary.untold,
        "good_per_second": _rounded(summary.good_per_second),
        "roofline": _rounded(summary.roofline),
        "client_busy": _rounded(summary.client_busy),
    }
    number = summary.load.removesuffix(" at once")
    if number != summary.load:
        row["at_once"] = int(number)
    for metric, name in _JSON_NAMES.items():
        row.update(_columns(name, getattr(summary.latencies, metric)))
    return row | _columns("asked_late_ms", summary.late)


def document_of(results: Sequence[Result], about: Mapping[str, Any]) -> dict[str, Any]:
    """The whole benchmark as JSON: the median rounds, all rounds, the ratios."""
    return {
        "about": dict(about),
        "rows": [_with_check(result) for result in results],
        "rounds": [row_of(summary) for result in results for summary in result.rounds],
        "ratios": [msgspec.to_builtins(ratio) for ratio in all_ratios(results)],
    }


def tables_of(results: Sequence[Result]) -> RenderableType:
    """Throughput, latencies, ratios and whatever the reader must know about them."""
    parts: list[RenderableType] = [_throughput(results), Text(), _latencies(results)]
    if ratios := all_ratios(results):
        parts += [Text(), _ratios(ratios)]
    notes = [note for result in results for note in notes_on(result)]
    parts += [Text(note, style="yellow") for note in dict.fromkeys(notes)]
    return Group(*parts)


def all_ratios(results: Sequence[Result]) -> list[Ratio]:
    """The first subject over every other one, at each load."""
    ratios: list[Ratio] = []
    for load in dict.fromkeys(result.load for result in results):
        first, *others = (result for result in results if result.load == load)
        for other in others:
            ratios += ratios_of(first.rounds, other.rounds)
    return ratios


def notes_on(result: Result) -> Iterator[str]:
    """What makes the figures of a result mean less than they seem to, or more."""
    summary = result.summary
    where = f"{result.subject}, {result.load}"
    for kind, count in summary.failures.items():
        yield f"{where}: {count} failed ({kind}): {summary.failure_messages[kind]}"
    if summary.unasked:
        yield f"{where}: {summary.unasked} later turns were not asked, as their conversation failed"
    if summary.untold:
        yield (
            f"{where}: {summary.untold} answers told no usage; their pieces were counted as tokens"
        )
    if summary.expected_tokens not in (None, summary.output_tokens):
        yield (
            f"{where}: {summary.output_tokens} output tokens, where {summary.expected_tokens} "
            "were asked for: the server does not honour ignore_eos, so compare no seconds"
        )
    if summary.client_busy is not None and summary.client_busy > BUSY:
        yield (
            f"{where}: this client was busy {summary.client_busy:.0%} of the time: the figures "
            "are partly its own (see --client-limit)"
        )
    if summary.late is not None and summary.late.p99 > LATE_SECONDS:
        yield f"{where}: 1 % of the questions were asked {_ms(summary.late.p99)} ms late or more"
    if result.same_text is not None:
        yield from _on_same_text(where, result)


def _on_same_text(where: str, result: Result) -> Iterator[str]:
    assert result.same_text is not None
    found = result.same_text.differences
    same = result.same_text.compared - len(found)
    yield f"{where}: {same} of {result.same_text.compared} answers are the same as alone"
    if found:
        first = found[0]
        yield (
            f"  the first that is not (question {first.conversation + 1}) parts at character "
            f"{first.at}: alone {first.alone!r}, together {first.together!r}"
        )


def _throughput(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("", "load", "answers", "failed", "requests/s", "output tok/s", "(all rounds)"):
        table.add_column(name, justify="left" if name in ("", "load") else "right")
    columns = [
        (name, read)
        for name, read in _OPTIONAL.items()
        if any(read(result.summary) for result in results)
    ]
    for name, _ in columns:
        table.add_column(name, justify="right")
    for result in results:
        summary = result.summary
        speeds = [each.tokens_per_second for each in result.rounds]
        table.add_row(
            result.subject,
            result.load,
            str(summary.answers),
            str(summary.num_failures),
            f"{summary.requests_per_second:.2f}",
            f"{summary.tokens_per_second:,.1f}",
            f"{min(speeds):,.0f}–{max(speeds):,.0f}",
            *(read(summary) for _, read in columns),
        )
    return table


def _latencies(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("load")
    table.add_column("milliseconds")
    for name in ("mean", "p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for result in results:
        for metric, name in METRICS.items():
            spread: Spread | None = getattr(result.summary.latencies, metric)
            values = (spread.mean, spread.p50, spread.p95, spread.p99) if spread else ()
            table.add_row(result.subject, result.load, name, *map(_ms, values))
    return table


def _ratios(ratios: Sequence[Ratio]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("load", "figure", "of", "over", "ratio", "(all rounds)"):
        table.add_column(name, justify="right" if name in ("ratio", "(all rounds)") else "left")
    for each in ratios:
        span = f"{each.lowest:.3f}–{each.highest:.3f}"
        table.add_row(each.load, each.figure, each.ours, each.theirs, f"{each.median:.3f}", span)
    return table


def _with_check(result: Result) -> dict[str, Any]:
    row = row_of(result.summary)
    if result.same_text is not None:
        row["compared_texts"] = result.same_text.compared
        row["different_texts"] = len(result.same_text.differences)
    return row


def _columns(name: str, spread: Spread | None) -> dict[str, float | None]:
    return {
        f"{name}_{part}": None if spread is None else round(getattr(spread, part) * 1000, 3)
        for part in ("mean", "p50", "p95", "p99")
    }


def _ms(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:,.0f}" if milliseconds >= 1000 else f"{milliseconds:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
