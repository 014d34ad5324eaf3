"""Puts the events of one answer into pieces, each of which is one line of a stream.

A tool call is one piece: Ollama's clients read its arguments as an object, so it waits
until it is whole. One that was cut off, and so is no object, is given as the text it is.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from engines.protocol import Event, Finished, ReasoningDelta, TextDelta, TokenLogprob, ToolCallDelta

_OBJECT = msgspec.json.Decoder(dict[str, Raw])


class CalledFunction(Struct, frozen=True):
    """The function that a model calls."""

    index: int
    name: str
    arguments: Raw  # a JSON object


class WireToolCall(Struct, frozen=True):
    """A finished tool call."""

    id: str
    function: CalledFunction


class Piece(Struct, frozen=True, kw_only=True):
    """A bit of an answer."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[WireToolCall] = ()
    logprobs: Sequence[TokenLogprob] = ()


class PieceReader:
    """Reads one answer's events in their order; `all` is everything so far as one piece."""

    def __init__(self) -> None:
        self._open: _OpenCall | None = None
        self._pieces: list[Piece] = []

    def read(self, event: Event) -> Sequence[Piece]:
        """The pieces that are whole with this event: none, one or two."""
        found: list[Piece] = []
        if isinstance(event, TextDelta):
            found.append(Piece(text=event.text, logprobs=event.logprobs))
        elif isinstance(event, ReasoningDelta):
            found.append(Piece(thinking=event.text))
        elif isinstance(event, ToolCallDelta):
            if self._open is not None and self._open.index != event.index:
                found.append(self._open.piece())
                self._open = None
            if self._open is None:
                self._open = _OpenCall(event)
            self._open.arguments.append(event.arguments)
        elif isinstance(event, Finished) and self._open is not None:
            found.append(self._open.piece())
            self._open = None
        self._pieces += found
        return found

    @property
    def all(self) -> Piece:
        """Everything that was read, put together."""
        return Piece(
            text="".join(piece.text for piece in self._pieces),
            thinking="".join(piece.thinking for piece in self._pieces),
            calls=[call for piece in self._pieces for call in piece.calls],
            logprobs=[entry for piece in self._pieces for entry in piece.logprobs],
        )


class _OpenCall:
    """A tool call whose arguments are still coming."""

    def __init__(self, first: ToolCallDelta) -> None:
        self.index = first.index
        self.id = first.id or f"call_{first.index}"
        self.name = first.name or ""
        self.arguments: list[str] = []

    def piece(self) -> Piece:
        text = "".join(self.arguments) or "{}"
        try:
            _OBJECT.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return Piece(text=text)
        function = CalledFunction(self.index, self.name, Raw(text.encode()))
        return Piece(calls=[WireToolCall(self.id, function)])
