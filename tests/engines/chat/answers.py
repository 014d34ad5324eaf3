"""Answers in pieces: what a model may write, cut anywhere, and what came out of it."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from hypothesis import strategies as st
from msgspec import Struct

from engines.chat.markup import Piece
from engines.chat.output import ChatOutput
from engines.protocol import Output, ReasoningDelta, TextDelta, TokenLogprob

AnyText = TypeVar("AnyText", str, bytes)


class Came(Struct):
    """All that one answer became, each kind joined."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = []
    stopped: str | None = None


def joined(events: Iterable[Output], stopped: str | None = None) -> Came:
    came = Came(stopped=stopped)
    for event in events:
        if isinstance(event, TextDelta):
            came.text += event.text
        elif isinstance(event, ReasoningDelta):
            came.reasoning += event.text
        elif event.name is not None:
            assert event.id is not None
            assert event.index == len(came.calls)
            came.calls.append((event.name, event.arguments))
        else:
            assert event.index == len(came.calls) - 1
            name, arguments = came.calls[-1]
            came.calls[-1] = (name, arguments + event.arguments)
    return came


def said(output: ChatOutput, tokens: Iterable[bytes]) -> Came:
    events: list[Output] = []
    for token in tokens:
        events += output.feed(token)
    events += output.finish()
    return joined(events, output.stopped)


def pieces_joined(pieces: Iterable[Piece]) -> list[tuple[str, str]]:
    """Pieces of one kind side by side are one piece."""
    merged: list[tuple[str, str]] = []
    for piece in pieces:
        if merged and merged[-1][0] == piece.kind.name:
            merged[-1] = (piece.kind.name, merged[-1][1] + piece.text)
        elif piece.text:
            merged.append((piece.kind.name, piece.text))
    return merged


def cut(whole: AnyText, cuts: Sequence[int]) -> list[AnyText]:
    places = sorted({0, len(whole), *(at % (len(whole) + 1) for at in cuts)})
    return [whole[start:end] for start, end in pairwise(places)]


def entry(token: bytes) -> TokenLogprob:
    return TokenLogprob(token, -0.5)


cuts = st.lists(st.integers(0, 2000), max_size=25)
"""Where to cut a text; places past its end wrap around."""
