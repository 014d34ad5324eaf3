"""Splits what a model thinks from what it answers: `<think>…</think>`.

One block is split off, wherever it begins: after it, an answer that talks about
the tags stays as it is. A closing tag without an opening one is text.
"""

from collections.abc import Sequence
from enum import Enum, auto

from engines.chat.markup import MAX_BLANKS, Kind, Piece, beginning_of, blanks_before

OPEN = "<think>"
CLOSE = "</think>"


class _State(Enum):
    BEFORE = auto()  # nothing but blanks so far
    TEXT = auto()
    OPENED = auto()  # nothing but blanks since the opening tag
    THINKING = auto()
    CLOSED = auto()  # nothing but blanks since the closing tag
    ANSWER = auto()


class ReasoningSplitter:
    """Sorts one answer into thinking and text, as it comes.

    Blanks inside the tags and after them are markup, and blanks before them if
    nothing else came before. What may be the beginning of a tag is held back.
    """

    __slots__ = ("_held", "_state")

    def __init__(self, *, starts_in_reasoning: bool = False) -> None:
        self._state = _State.OPENED if starts_in_reasoning else _State.BEFORE
        self._held = ""

    @property
    def is_reasoning(self) -> bool:
        """The model is between the tags."""
        return self._state is _State.THINKING or self._state is _State.OPENED

    @property
    def is_done(self) -> bool:
        """All that is still to come is text."""
        return self._state is _State.ANSWER

    def feed(self, text: str) -> Sequence[Piece]:
        """Return the pieces that are decided now."""
        if self._state is _State.ANSWER:
            return (Piece(Kind.TEXT, text),)
        text, self._held = self._held + text, ""
        pieces: list[Piece] = []
        while text:
            before = self._state
            text = self._step(text, pieces)
            if self._state is before:
                break
        self._held = text
        return pieces

    def flush(self) -> Sequence[Piece]:
        """Return what was held back: no more text will come to make it a tag."""
        held, self._held = self._held, ""
        if not held:
            return ()
        return (Piece(Kind.REASONING if self.is_reasoning else Kind.TEXT, held),)

    def _step(self, text: str, pieces: list[Piece]) -> str:
        """Take from the front of `text` what one state decides; return the rest."""
        match self._state:
            case _State.BEFORE:
                return self._before(text, pieces)
            case _State.TEXT:
                return self._text(text, pieces)
            case _State.OPENED:
                return self._skip_blanks(text, pieces, _State.THINKING)
            case _State.THINKING:
                return self._thinking(text, pieces)
            case _State.CLOSED:
                return self._skip_blanks(text, pieces, _State.ANSWER)
            case _State.ANSWER:
                pieces.append(Piece(Kind.TEXT, text))
                return ""

    def _before(self, text: str, pieces: list[Piece]) -> str:
        blanks = len(text) - len(text.lstrip())
        rest = text[blanks : blanks + len(OPEN)]
        if blanks > MAX_BLANKS or not OPEN.startswith(rest):
            self._state = _State.TEXT
            return text
        if rest != OPEN:
            return text
        self._state = _State.OPENED
        pieces.append(Piece(Kind.MARKUP, text[: blanks + len(OPEN)]))
        return text[blanks + len(OPEN) :]

    def _text(self, text: str, pieces: list[Piece]) -> str:
        at = text.find(OPEN)
        if at < 0:
            return _release(text, len(text) - beginning_of(OPEN, text), Kind.TEXT, pieces)
        self._state = _State.OPENED
        _release(text, at, Kind.TEXT, pieces)
        pieces.append(Piece(Kind.MARKUP, OPEN))
        return text[at + len(OPEN) :]

    def _thinking(self, text: str, pieces: list[Piece]) -> str:
        at = text.find(CLOSE)
        if at < 0:
            end = blanks_before(text, len(text) - beginning_of(CLOSE, text))
            return _release(text, end, Kind.REASONING, pieces)
        self._state = _State.CLOSED
        end = blanks_before(text, at)
        _release(text, end, Kind.REASONING, pieces)
        pieces.append(Piece(Kind.MARKUP, text[end : at + len(CLOSE)]))
        return text[at + len(CLOSE) :]

    def _skip_blanks(self, text: str, pieces: list[Piece], following: _State) -> str:
        rest = text.lstrip()
        if len(rest) < len(text):
            pieces.append(Piece(Kind.MARKUP, text[: len(text) - len(rest)]))
        if rest:
            self._state = following
        return rest


def _release(text: str, end: int, kind: Kind, pieces: list[Piece]) -> str:
    if end:
        pieces.append(Piece(kind, text[:end]))
    return text[end:]
