"""Asks a question and prints the answer as it comes."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import click
from msgspec import Struct, field
from rich.console import Console

from gateway.cli.client import GatewayClient
from gateway.cli.conversation import Conversation
from gateway.cli.quantities import NANOSECONDS, seconds_text
from gateway.cli.waiting import Waiting
from gateway.cli.word_wrap import WordWrap

IGNORED_HEADER, NUM_CTX_HEADER = "x-penstock-ignored", "x-penstock-num-ctx"


class Display(Struct, kw_only=True):
    """How answers are shown; `/set` changes it."""

    verbose: bool = False  # with timings
    word_wrap: bool = True  # on a terminal only
    thinking: bool = True
    told: set[str] = field(default_factory=set[str])  # what has no effect, said once each


def ask(
    client: GatewayClient,
    conversation: Conversation,
    display: Display,
    question: str,
    images: Sequence[str] = (),
) -> None:
    """Ask, print, remember. What was said before Ctrl-C is remembered, too, as it was said."""
    printer = _Printer(display)
    waiting = Waiting(Console(stderr=True, highlight=False), client)
    last: Mapping[str, Any] = {}
    ignored: dict[str, str] = {}
    body = conversation.body(question, images)
    try:
        # Closing the stream hangs up; the gateway frees the slot within a step.
        with waiting, closing(client.stream("/api/chat", body, ignored.update)) as chunks:
            for chunk in chunks:
                message: dict[str, Any] = chunk.get("message") or {}
                if message.get("content") or message.get("thinking"):
                    waiting.stop()
                printer.add(message.get("thinking") or "", message.get("content") or "")
                last = chunk
    finally:
        printer.end()
        if printer.answer:
            conversation.add(question, printer.answer, images)
    _tell_ignored(ignored, display)
    if display.verbose:
        print_timings(last)


def _tell_ignored(headers: Mapping[str, str], display: Display) -> None:
    """Say of what was asked for what had no effect, or who sets it will wonder."""
    names = [name for name in headers.get(IGNORED_HEADER, "").split(", ") if name]
    notes = [f"{name.removeprefix('options.')} has no effect here" for name in names]
    if tokens := headers.get(NUM_CTX_HEADER):
        notes.append(f"the context stays at {tokens} tokens: it is the gateway's to say")
    for note in notes:
        if note not in display.told:
            display.told.add(note)
            click.secho(note, err=True, dim=True)


class _Printer:
    """Prints an answer to standard output and the thinking before it to standard error."""

    def __init__(self, display: Display) -> None:
        self._shows_thinking = display.thinking
        width = shutil.get_terminal_size().columns
        self._wrap = WordWrap(width) if display.word_wrap and sys.stdout.isatty() else None
        self._is_thinking = False
        self._pieces: list[str] = []

    @property
    def answer(self) -> str:
        """What was said so far."""
        return "".join(self._pieces)

    def add(self, thinking: str, text: str) -> None:
        if thinking and self._shows_thinking:
            if not self._is_thinking:
                self._is_thinking = True
                click.secho("Thinking...", err=True, dim=True)
            click.secho(thinking, err=True, nl=False, dim=True)
        if text:
            self._end_thinking()
            self._pieces.append(text)
            self._print(text if self._wrap is None else self._wrap.add(text))

    def end(self) -> None:
        """Finish the line; also of an answer that broke off."""
        self._end_thinking()
        if self._pieces:
            click.echo()

    def _end_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            click.secho("\n...done thinking.\n", err=True, dim=True)

    @staticmethod
    def _print(text: str) -> None:
        if text:
            click.echo(text, nl=False)


def print_timings(last: Mapping[str, Any]) -> None:
    """What the last line of an answer says of the time that it took."""
    rows: list[tuple[str, str]] = []
    for name in ("total", "load", "prompt_eval", "eval"):
        words = name.replace("_", " ")
        count, duration = last.get(f"{name}_count"), last.get(f"{name}_duration")
        if count is not None:
            rows.append((f"{words} count", f"{count} token(s)"))
        if duration:
            rows.append((f"{words} duration", seconds_text(duration / NANOSECONDS)))
            if count:
                rate = count / (duration / NANOSECONDS)
                rows.append((f"{words} rate", f"{rate:.2f} tokens/s"))
    for name, value in rows:
        click.echo(f"{name + ':':<22} {value}", err=True)
