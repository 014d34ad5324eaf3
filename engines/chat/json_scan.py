"""Finds where a JSON value ends while it is still being written.

It reads every character once, whatever the chunks, and builds nothing: brackets
are counted and strings are skipped. What cannot be JSON at all ends the scan, so
that text which only looks like a value at first is not held on to.
"""

import re

_OUTSIDE = re.compile(r"[\s\w.,:+\-]*")
_INSIDE = re.compile(r'[^"\\]*')
_CLOSES = {"{": "}", "[": "]"}
MAX_DEPTH = 200


class JsonScan:
    """Scans one object, list or string. `is_done` or `is_broken` become true, never both.

    With `inside_object`, the object's opening bracket was read before.
    """

    __slots__ = ("_expected", "_in_string", "_is_escaped", "is_broken", "is_done")

    def __init__(self, *, inside_object: bool = False) -> None:
        self._expected = ["}"] if inside_object else []
        self._in_string = False
        self._is_escaped = False
        self.is_done = False
        self.is_broken = False

    def feed(self, text: str, start: int = 0) -> int:
        """Read `text` from `start`; return where the value ends or breaks, or the end of `text`."""
        at, end = start, len(text)
        while at < end and not self.is_done and not self.is_broken:
            at = self._string(text, at) if self._in_string else self._structure(text, at)
        return at

    def _string(self, text: str, at: int) -> int:
        if self._is_escaped:
            self._is_escaped = False
            return at + 1
        match = _INSIDE.match(text, at)
        at = match.end() if match else at
        if at == len(text):
            return at
        if text[at] == "\\":
            self._is_escaped = True
        else:
            self._in_string = False
            self.is_done = not self._expected
        return at + 1

    def _structure(self, text: str, at: int) -> int:
        if self._expected:
            match = _OUTSIDE.match(text, at)
            at = match.end() if match else at
            if at == len(text):
                return at
        character = text[at]
        if character == '"':
            self._in_string = True
        elif character in _CLOSES and len(self._expected) < MAX_DEPTH:
            self._expected.append(_CLOSES[character])
        elif self._expected and character == self._expected[-1]:
            self._expected.pop()
            self.is_done = not self._expected
        else:
            self.is_broken = True
            return at
        return at + 1
