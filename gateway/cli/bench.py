"""`penstock bench`: how fast a model answers, with one and with many callers at once.

Works against any OpenAI-compatible server, and against an engine in this
process. What is measured is in `gateway/bench`; here are the progress bar and
where the results go. The options are in bench_options.py beside this.
"""

import contextlib
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli import bench_options, bench_plan

if TYPE_CHECKING:
    from gateway.bench.plan import Plan, Result
    from gateway.bench.question import Subject

MIN_WIDTH = 150  # characters


@click.command("bench")
@click.argument("model")
@bench_options.where
@bench_options.what
@bench_options.how_much
@bench_options.where_to
def command(model: str, **given: Any) -> None:
    """Measure how fast MODEL answers, at several numbers of callers or rates.

    Every answer is streamed. With two servers (--vs, or --url twice), or an engine and
    a server, their rounds alternate and the ratio is printed. docs/benchmarks.md
    defines every figure.
    """
    options = bench_plan.read(model, given)
    if options.chart is not None:
        _check_chart(options.chart)
    results = _run(options)
    if options.json_to != "-":
        _print(results)
    if options.json_to is not None:
        _write_json(results, options)
    if options.chart is not None:
        from gateway.bench.chart import draw

        draw(results, options.chart, title=f"{options.model}, workload {options.workload_name}")
    # A script must not take a benchmark without answers for one that went well.
    has_failed = any(result.summary.answers == 0 for result in results)
    differs = any(result.same_text and result.same_text.differences for result in results)
    if has_failed or differs:
        raise SystemExit(1)


def _check_chart(path: Path) -> None:
    from gateway.bench.chart import ChartImpossible, check_chart

    try:
        check_chart(path)
    except ChartImpossible as error:
        raise click.UsageError(str(error)) from None


def _run(options: bench_plan.Options) -> "list[Result]":
    """Measure, on an event loop like the gateway's own."""
    import asyncio

    from gateway.bench.question import SubjectUnusable

    try:
        import uvloop

        make_loop = uvloop.new_event_loop
    except ImportError:  # Windows has none
        make_loop = None
    _allow_many_connections()
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(_measure(options))
    except SubjectUnusable as error:
        raise click.ClickException(str(error)) from None


async def _measure(options: bench_plan.Options) -> "list[Result]":
    from gateway.bench.http_subject import connected
    from gateway.bench.plan import carry_out

    if options.measures_client:
        await _tell_client_limit(options.plan)
    async with AsyncExitStack() as stack:
        subjects: list[Subject] = []
        plan = options.plan
        if options.engine is not None:
            subject, plan = await _engine(options, stack)
            subjects.append(subject)
        for server in options.servers:
            subjects.append(await stack.enter_async_context(connected(server)))
        with _Progress() as progress:
            return await carry_out(plan, subjects, progress)


async def _engine(options: bench_plan.Options, stack: AsyncExitStack) -> "tuple[Subject, Plan]":
    """The policy's engine, started, and the plan with its roofline where that is known."""
    import msgspec

    from gateway.bench.engine_subject import engine_of, started
    from gateway.cli.serve import SWITCH_INTERVAL_SECONDS, explained, settings_of
    from gateway.logs import configure_logs

    assert options.engine is not None
    configure_logs("error", "auto")
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)  # as when it is served
    settings = settings_of(policy=options.policy)
    try:
        found = engine_of(settings, options.engine, options.model)
    except Exception as error:
        raise explained(error) from error
    subject = await stack.enter_async_context(started(found.engine, found.model))
    _say(
        f"{subject.name}: started in {subject.start_up.start:.2f} s, "
        f"{found.model} loaded in {subject.start_up.load:.2f} s"
    )
    bound = options.roofline or bench_plan.bound_of_engine(found.config)
    bounds = {**options.plan.bounds, **({subject.name: bound} if bound else {})}
    return subject, msgspec.structs.replace(options.plan, bounds=bounds)


async def _tell_client_limit(plan: "Plan") -> None:
    from gateway.bench.client_limit import measure_client
    from gateway.bench.load import AtOnce

    for load in plan.loads:
        if isinstance(load, AtOnce):
            limit = await measure_client(load.num_callers)
            _say(
                f"this client, {load}: {limit.seconds_per_piece * 1e6:.1f} µs of its own for a "
                f"piece, so at most {limit.pieces_per_second:,.0f} pieces/s; first output after "
                f"{limit.first_output.p50 * 1000:.2f} ms from a server that computes nothing"
            )


def _print(results: "Sequence[Result]") -> None:
    from rich.console import Console

    from gateway.bench.report import tables_of

    console = Console(highlight=False, markup=False, soft_wrap=True)
    # A line that does not fit is broken by the terminal; a file or pipe gets it whole.
    console.width = max(console.width, MIN_WIDTH)
    console.print(tables_of(results))


def _write_json(results: "Sequence[Result]", options: bench_plan.Options) -> None:
    from gateway.bench.report import document_of

    text = json.dumps(document_of(results, _about(options)), indent=2)
    if options.json_to == "-":
        click.echo(text)
        return
    assert options.json_to is not None
    try:
        Path(options.json_to).write_text(text + "\n")
    except OSError as error:
        # An hour's figures are not lost because a folder is.
        click.echo(text)
        raise click.ClickException(
            f"{options.json_to} cannot be written ({error.strerror}); the JSON is above"
        ) from None


def _about(options: bench_plan.Options) -> dict[str, Any]:
    """What a file of results must say to be understood later."""
    import platform
    from datetime import UTC, datetime
    from importlib.metadata import PackageNotFoundError, version
    from os import cpu_count

    try:
        penstock = version("penstock")
    except PackageNotFoundError:
        penstock = "from its sources"
    return {
        "model": options.model,
        "workload": options.workload_name,
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in options.given.items()
            if value is not None
        },
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "penstock": penstock,
        "client": f"Python {platform.python_version()}, {platform.machine()}, {cpu_count()} cores",
    }


def _allow_many_connections() -> None:
    """Let this process open as many sockets as the system allows it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(line: str) -> None:
    click.echo(line, err=True)


class _Progress:
    """A bar on a terminal, a line for each run elsewhere; both on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        console = Console(stderr=True)
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, transient=True)
        self._shows_bars = console.is_terminal
        self._task: Any = None

    def __enter__(self) -> "_Progress":
        if self._shows_bars:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shows_bars:
            self._bars.stop()

    def began(self, what: str, num_questions: int) -> None:
        if self._shows_bars:
            self._task = self._bars.add_task(what, total=num_questions)
        else:
            _say(what)

    def answered(self) -> None:
        if self._task is not None:
            self._bars.advance(self._task)

    def ended(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
