'''Reads what is typed: with line editing, a history that is kept, and messages of several lines.

A message that begins with `"""` goes on until a line ends with the same. So does
the text after `/set system`.
'''

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

import click

try:
    import readline
except ImportError:  # not every system has it; then a line is read as it comes
    readline = None

PROMPT, GOING_ON = ">>> ", "... "
_QUOTE = '"""'
_BEGINNING = re.compile(r'\s*(/set\s+system\s+)?"""', re.IGNORECASE)
_MAX_LINES = 1000


class LineReader:
    """The terminal's lines. `history` is where they are kept, None for nowhere."""

    def __init__(self, history: Path | None, words: Sequence[str] = ()) -> None:
        self._history = history
        self._words = words
        if readline is None:
            return
        if history is not None:
            with contextlib.suppress(OSError):
                readline.read_history_file(history)
        readline.set_history_length(_MAX_LINES)
        readline.set_completer_delims(" \t\n")
        readline.set_completer(self._completed)
        is_libedit = "libedit" in (readline.__doc__ or "")  # in its place on some systems
        readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")

    def read(self) -> str:
        """The next message. Raises `EOFError` for Ctrl-D, `KeyboardInterrupt` for Ctrl-C."""
        line = input(PROMPT)
        found = _BEGINNING.match(line)
        if found is None:
            return line
        command = found[1] or ""
        lines = [line[found.end() :]]
        while not lines[-1].rstrip().endswith(_QUOTE):
            lines.append(input(GOING_ON))
        lines[-1] = lines[-1].rstrip().removesuffix(_QUOTE)
        return command + "\n".join(lines).strip("\n")

    def keep_history(self, *, kept: bool) -> None:
        """Whether lines from now on can be had back with the arrow keys, and are kept."""
        if readline is not None:
            readline.set_auto_history(kept)

    def close(self) -> None:
        """Write the history to where it is kept; only its owner may read it."""
        if readline is None or self._history is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._history.touch(mode=0o600)
            readline.write_history_file(self._history)
        except OSError as error:
            click.echo(f"the history cannot be kept: {error}", err=True)

    def _completed(self, text: str, state: int) -> str | None:
        fitting = [word for word in self._words if word.startswith(text)] if text else []
        return fitting[state] if state < len(fitting) else None
