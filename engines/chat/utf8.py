"""Turns a model's bytes into text, and remembers which tokens the text came from.

A token may hold half a character, or the end of one and the beginning of the
next. Text is released by whole characters only, and bytes that are not UTF-8
become U+FFFD, exactly as `errors="replace"` does for the bytes in one piece.
"""

import codecs
from collections import deque

from engines.protocol import TokenLogprob

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Utf8Decoder:
    """Decodes the bytes of one answer; holds back at most three of them."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = _new_decoder("replace")

    def feed(self, token: bytes) -> str:
        """Return the characters that are complete now."""
        return self._decoder.decode(token)

    def flush(self) -> str:
        """Return U+FFFD for a character that was never completed."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class TokenLedger:
    """Which log-probability entry belongs to which characters of an answer.

    Positions count characters of everything the model wrote, markup and
    thinking included. A token belongs to the text that holds its first
    character, or the character that its bytes help to complete.
    """

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: deque[tuple[int, int, TokenLogprob]] = deque()

    def add(self, entry: TokenLogprob, *, start: int, end: int) -> None:
        """Record a token that put the characters from `start` up to `end` into the text."""
        # A token that completed no character has a share in the next one.
        self._spans.append((start, max(end, start + 1), entry))

    def take(self, *, start: int, end: int) -> tuple[TokenLogprob, ...]:
        """Hand out, once, the entries of the text from `start` up to `end`.

        Entries before `start` are forgotten: their characters were not answer text.
        """
        spans = self._spans
        entries: list[TokenLogprob] = []
        while spans and spans[0][0] < end:
            first, last, entry = spans[0]
            if last > start or first >= start:
                entries.append(entry)
            spans.popleft()
        return tuple(entries)
