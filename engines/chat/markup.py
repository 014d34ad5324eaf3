"""Generated text in pieces: what it is for, and where markup may be about to begin.

A splitter takes text and gives pieces that, joined in order, are that text: so
nothing is lost, and a place in the text is known by counting.
"""

from enum import Enum, auto
from typing import NamedTuple

from engines.protocol import ToolCallDelta

# How much blank space beside a tag is dropped with it. More than this is held back by nobody,
# so a model that only writes blanks costs neither memory nor time.
MAX_BLANKS = 64


class Kind(Enum):
    """What a piece is; markup is shown to nobody."""

    TEXT = auto()
    REASONING = auto()
    TOOL_CALL = auto()
    MARKUP = auto()


class Piece(NamedTuple):
    """A stretch of what the model wrote, and the delta that it became if it is of a tool call."""

    kind: Kind
    text: str
    call: ToolCallDelta | None = None


def beginning_of(tag: str, text: str, start: int = 0) -> int:
    """Say how many characters at the end of `text`, from `start` on, may begin `tag`."""
    start = max(start, len(text) - len(tag) + 1)
    while (start := text.find(tag[0], start)) >= 0:
        if tag.startswith(text[start:]):
            return len(text) - start
        start += 1
    return 0


def blanks_before(text: str, end: int, start: int = 0) -> int:
    """Say where the blanks before `end` begin: `MAX_BLANKS` of them at most."""
    start = max(start, end - MAX_BLANKS)
    while end > start and text[end - 1].isspace():
        end -= 1
    return end


def blanks_after(text: str, start: int) -> int:
    """Say where the blanks that begin at `start` end."""
    while start < len(text) and text[start].isspace():
        start += 1
    return start
