"""Draws a benchmark as a PNG or SVG; needs the extra `penstock[chart]`.

Uses matplotlib's objects directly, never its `pyplot`, which keeps every figure
in a global list and wants a display.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway.bench.plan import Result
from gateway.bench.summary import Spread, total

FORMATS = (".png", ".svg")
_INCHES = (11.0, 7.5)
_METRICS: Mapping[str, str] = {
    "first_output": "first output (TTFT), ms",
    "per_token": "time per token (TPOT), ms",
}


class ChartImpossible(ValueError):
    """No chart can be drawn; says what to do."""


def check_chart(path: Path) -> None:
    """Find out before the measurement whether its chart could be drawn at all."""
    if path.suffix.lower() not in FORMATS:
        raise ChartImpossible(f"{path.name!r} is neither .png nor .svg")
    if not _has_matplotlib():
        raise ChartImpossible("charts need matplotlib: pip install 'penstock[chart]'")
    if not path.absolute().parent.is_dir():
        raise ChartImpossible(f"there is no folder {path.absolute().parent}")


def _has_matplotlib() -> bool:
    try:
        return find_spec("matplotlib") is not None
    except ValueError:  # it was imported, and has failed
        return False


def draw(results: Sequence[Result], path: Path, *, title: str) -> None:
    """Four panels: tokens/s, TTFT and TPOT by load, and how long answers took."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=_INCHES, layout="constrained")
    figure.suptitle(title)
    panels: Any = figure.subplots(2, 2).flat
    subjects = list(dict.fromkeys(result.subject for result in results))
    loads = list(dict.fromkeys(result.load for result in results))
    by_place = {(result.subject, result.load): result for result in results}

    def each(draw_one: Callable[[str, list[Result]], None]) -> None:
        for subject in subjects:
            draw_one(subject, [by_place[subject, load] for load in loads])

    _bars(panels[0], subjects, loads, by_place)
    for axes, (metric, name) in zip(panels[1:3], _METRICS.items(), strict=False):
        each(lambda subject, own, a=axes, m=metric: _spread(a, subject, loads, own, m))
        axes.set_title(f"{name}: p50 and up to p99")
        axes.set_ylim(bottom=0)
    each(lambda subject, own: _distribution(panels[3], subject, own))
    panels[3].set_title("answers finished, by seconds")
    for axes in panels:
        axes.grid(visible=True, alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize="small")
    # Without its date, the same results make the same file.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
    figure.savefig(path, metadata=metadata)


def _bars(
    axes: Any,
    subjects: Sequence[str],
    loads: Sequence[str],
    by_place: Mapping[tuple[str, str], Result],
) -> None:
    width = 0.8 / len(subjects)
    for nth, subject in enumerate(subjects):
        own = [by_place[subject, load] for load in loads]
        speeds = [result.summary.tokens_per_second for result in own]
        rounds = [[s.tokens_per_second for s in result.rounds] for result in own]
        below = [speed - min(each) for speed, each in zip(speeds, rounds, strict=True)]
        above = [max(each) - speed for speed, each in zip(speeds, rounds, strict=True)]
        places = [place + (nth - (len(subjects) - 1) / 2) * width for place in range(len(loads))]
        axes.bar(places, speeds, width, yerr=[below, above], capsize=3, label=subject)
    axes.set_xticks(range(len(loads)), loads)
    axes.set_title("output tokens/s: the median round, and all rounds' range")


def _spread(
    axes: Any, subject: str, loads: Sequence[str], own: Sequence[Result], metric: str
) -> None:
    points: list[tuple[int, Spread]] = []
    for place, result in enumerate(own):
        spread: Spread | None = getattr(result.summary.latencies, metric)
        if spread is not None:
            points.append((place, spread))
    places = [place for place, _ in points]
    middles = [spread.p50 * 1000 for _, spread in points]
    above = [(spread.p99 - spread.p50) * 1000 for _, spread in points]
    below = [0.0] * len(points)
    axes.errorbar(places, middles, yerr=[below, above], marker="o", capsize=3, label=subject)
    axes.set_xticks(range(len(loads)), loads)


def _distribution(axes: Any, subject: str, own: Sequence[Result]) -> None:
    for result in own:
        seconds = sorted(total(*pair) for pair in result.median_run.answered)
        if seconds:
            label = f"{subject}, {result.load}" if len(own) <= 4 else None
            axes.ecdf(seconds, label=label)
    axes.set_xlim(left=0)
