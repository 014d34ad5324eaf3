from engines.protocol import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from gateway.api.ollama.pieces import Piece, PieceReader

END = Finished(reason=FinishReason.STOP, usage=Usage())


def read(*events: Event) -> list[Piece]:
    reader = PieceReader()
    return [piece for event in events for piece in reader.read(event)]


def test_text_and_thinking_are_pieces_at_once() -> None:
    pieces = read(Started(prompt_tokens=1), ReasoningDelta("hm"), TextDelta("so"), END)

    assert [(piece.thinking, piece.text) for piece in pieces] == [("hm", ""), ("", "so")]


def test_a_call_is_a_piece_when_the_next_one_begins_or_all_ends() -> None:
    reader = PieceReader()
    events: list[Event] = [
        ToolCallDelta(index=0, id="a", name="f"),
        ToolCallDelta(index=0, arguments='{"x": [1'),
        ToolCallDelta(index=0, arguments="]}"),
        ToolCallDelta(index=1, id="b", name="g"),
        END,
    ]

    counts = [len(reader.read(event)) for event in events]

    assert counts == [0, 0, 0, 1, 1]
    assert [(call.id, bytes(call.function.arguments)) for call in reader.all.calls] == [
        ("a", b'{"x": [1]}'),
        ("b", b"{}"),
    ]


def test_arguments_that_are_no_object_are_text() -> None:
    for arguments in ("[1]", '{"x":', "hello", '{"x": 1} and'):
        (piece,) = read(ToolCallDelta(index=0, id="a", name="f", arguments=arguments), END)
        assert (piece.text, piece.calls) == (arguments, ())


def test_what_is_not_kept_is_not_held() -> None:
    reader = PieceReader(keeps=False)
    reader.read(TextDelta("so"))

    assert reader.all == Piece(calls=[], logprobs=[])
