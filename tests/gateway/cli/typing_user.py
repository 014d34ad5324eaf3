"""Somebody at a terminal: types at a program, and waits for what it shows."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PATIENCE_SECONDS = 50.0  # less than a test may take, so that what was shown is told
# Ctrl-C is for the program whose terminal it is, and only itself can take it as its own.
IN_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "gateway", *sys.argv[1:]])
"""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\r")


class TypingUser:
    """One program in one terminal. Nothing waits for a time, all for a text."""

    def __init__(self, terminal: int, process: "subprocess.Popen[bytes]") -> None:
        self._terminal = terminal
        self.process = process
        self.raw = b""
        self._read_up_to = 0

    @property
    def shown(self) -> str:
        """All that was shown so far, without colours and cursor movements."""
        return _ESCAPES.sub("", self.raw.decode(errors="ignore"))

    def interrupts(self, until: str) -> None:
        """Press Ctrl-C until `until` is shown.

        Python's readline feels a signal only while it waits for a key: one that comes while
        it is busy with the last key has to wait for the next.
        """
        for _ in range(int(PATIENCE_SECONDS)):
            self.presses(b"\x03")
            try:
                self.sees(until, 1.0)
            except AssertionError:
                continue
            return
        self.sees(until)

    def sees(self, text: str, patience_seconds: float = PATIENCE_SECONDS) -> str:
        """Wait until `text` is shown, after what was waited for before; what came up to it."""
        deadline = time.monotonic() + patience_seconds
        while (at := self.shown.find(text, self._read_up_to)) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                rest = self.shown[self._read_up_to :]
                raise AssertionError(f"{text!r} was not shown, but {rest!r}")
        before = self.shown[self._read_up_to : at]
        self._read_up_to = at + len(text)
        return before

    def types(self, text: str) -> None:
        """Type a line and Return."""
        self.presses(text.encode() + b"\n")

    def presses(self, keys: bytes) -> None:
        """Press keys: b"\\x03" is Ctrl-C, b"\\x04" Ctrl-D."""
        os.write(self._terminal, keys)

    def leaves(self) -> int:
        """Press Ctrl-D and wait for the end; the exit status."""
        self.presses(b"\x04")
        return self.waits()

    def waits(self) -> int:
        """Wait for the program's end; the exit status."""
        while self._read(PATIENCE_SECONDS):
            pass
        return self.process.wait(PATIENCE_SECONDS)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._terminal], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self._terminal, 65536)
        except OSError:  # what Linux says when the other end was closed
            return False
        self.raw += piece
        return bool(piece)


@contextmanager
def typing_user(
    *words: str, columns: int = 200, environment: Mapping[str, str] | None = None
) -> Iterator[TypingUser]:
    """`penstock` with these words in a terminal of its own."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "INPUTRC")}

    process = subprocess.Popen(
        [sys.executable, "-c", IN_ITS_TERMINAL, *words],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**kept, "TERM": "xterm", **(environment or {})},
    )  # fmt: skip
    os.close(theirs)
    try:
        yield TypingUser(ours, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        os.close(ours)
