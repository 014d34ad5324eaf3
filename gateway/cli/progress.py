"""Shows how a long job on a model goes: bars on a terminal, plain lines elsewhere, or JSON.

A gateway tells it in Ollama's words: `{"status": "pulling 6a0746a1ec1a", "digest":
"sha256:…", "total": 400, "completed": 100}`, many at once and in any order.
"""

import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import click

from gateway.cli.quantities import bytes_text, seconds_text

Show = Callable[[Mapping[str, Any]], None]
PLAIN_SECONDS = 5.0  # between two lines on one file, where there are no bars


class Clock(Protocol):
    """Seconds from anywhere, going forward."""

    def __call__(self) -> float:
        """Now."""
        ...


@contextmanager
def shown_progress(*, as_json: bool = False) -> Generator[Show, None, None]:
    """A function that shows each step it is given; whatever ends the block, the terminal is left
    as it was.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if as_json:
        yield lambda step: click.echo(json.dumps(step))
    elif console.is_terminal:
        bars = _Bars(console)
        with bars.progress:
            yield bars.show
    else:
        yield PlainLines(lambda line: click.echo(line, err=True)).show


class PlainLines:
    """One line for each status, and for each file one now and then, as logs want it."""

    def __init__(self, say: Callable[[str], None], clock: Clock = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._files: dict[str, _Pace] = {}
        self._last = ""

    def show(self, step: Mapping[str, Any]) -> None:
        """Say what there is to say of a step."""
        status, total = str(step.get("status", "")), step.get("total")
        if total:
            self._file(status, int(total), int(step.get("completed") or 0))
        elif status and status != self._last:
            self._say(status)
        self._last = status

    def _file(self, status: str, total: int, done: int) -> None:
        now = self._clock()
        pace = self._files.get(status)
        if pace is None:
            pace = self._files[status] = _Pace(now, done)
            had = f", {bytes_text(done)} of it are there" if 0 < done < total else ""
            self._say(f"{status}: {bytes_text(total)}{had}")
        is_whole = done >= total
        if pace.is_whole or not (is_whole or now - pace.said_at >= PLAIN_SECONDS):
            return
        pace.said_at, pace.is_whole = now, is_whole
        if is_whole:
            self._say(f"{status}: done")
            return
        speed = (done - pace.first_done) / max(now - pace.first_at, 1e-9)
        left = f", {seconds_text((total - done) / speed)} left" if speed > 0 else ""
        self._say(f"{status}: {done / total:.0%}, {bytes_text(speed)}/s{left}")


class _Pace:
    """How a file went so far."""

    def __init__(self, now: float, done: int) -> None:
        self.first_at = self.said_at = now
        self.first_done = done
        self.is_whole = False


class _Bars:
    """A bar for each file, with speed and time left, and a line for each other status."""

    def __init__(self, console: Any) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self.progress = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.percentage:>3.0f}%"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            expand=True,
            # Shown once more when all is over, so that it stays to be read.
            transient=False,
        )
        self._console = console
        self._tasks: dict[str, Any] = {}
        self._last = ""

    def show(self, step: Mapping[str, Any]) -> None:
        status, total = str(step.get("status", "")), step.get("total")
        if total:
            self._file(status, int(total), int(step.get("completed") or 0))
        elif status and status != self._last:
            self._console.print(status, markup=False)
        self._last = status

    def _file(self, status: str, total: int, done: int) -> None:
        if status not in self._tasks:
            # What an earlier pull has left counts as done, not as fast.
            self._tasks[status] = self.progress.add_task(status, total=total, completed=done)
        self.progress.update(self._tasks[status], total=total, completed=done)


def counted(
    pieces: Iterable[bytes], status: str, total: int, show: Show
) -> Generator[bytes, None, None]:
    """Pass pieces of a file on, and show after each how much went."""
    done = 0
    show({"status": status, "total": total, "completed": 0})
    for piece in pieces:
        yield piece
        done += len(piece)
        show({"status": status, "total": total, "completed": done})
