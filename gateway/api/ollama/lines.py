"""Writes the lines of a stream: each one JSON object (NDJSON).

What all lines of an answer repeat is encoded once.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec
import structlog

from engines.protocol import Event, Finished
from gateway.api.framing import ndjson
from gateway.api.ollama.answers import figures_of, to_logprobs
from gateway.api.ollama.durations import now
from gateway.api.ollama.pieces import Piece, PieceReader
from gateway.api.ollama.problem import ollama_problem
from gateway.call import Call
from gateway.errors import problem_of

log = structlog.get_logger()

Said = Callable[[Piece], bytes]  # the fields of a line that are an endpoint's own, as JSON members
_encode = msgspec.json.Encoder().encode


async def lines(
    call: Call,
    name: str,
    events: AsyncGenerator[Event, None],
    said: Said,
    at_end: Callable[[Piece], bytes],
) -> AsyncGenerator[bytes, None]:
    """The answer as lines; `at_end` are more members for the last one, of everything said."""
    head, reader = b'{"model":%b,"created_at":"' % _encode(name), PieceReader()
    try:
        async with aclosing(events):
            async for event in events:
                for piece in reader.read(event):
                    yield _line(head, said(piece), _logprobs(piece), b',"done":false')
                if isinstance(event, Finished):
                    end = said(Piece()), _done(call, event), at_end(reader.all)
                    yield _line(head, *end)
    except Exception as error:  # noqa: BLE001 - the status is out: the failure goes in the stream
        yield error_line(call, error)


async def whole(
    call: Call,
    name: str,
    events: AsyncGenerator[Event, None],
    said: Said,
    at_end: Callable[[Piece], bytes],
) -> bytes:
    """The same as one object. Raises what the engine raises."""
    reader, end = PieceReader(), b""
    async with aclosing(events):
        async for event in events:
            reader.read(event)
            if isinstance(event, Finished):
                end = _done(call, event)
    answer = reader.all
    head = b'{"model":%b,"created_at":"' % _encode(name)
    return _line(head, said(answer), _logprobs(answer), end, at_end(answer))


def error_line(call: Call, error: Exception) -> bytes:
    """The line that ends a stream that failed on the way; the call knows it failed."""
    problem = problem_of(error)
    if problem.code == "internal":
        log.error("call_failed", call=call.id, exc_info=error)
    call.error = call.error or problem
    return ndjson(ollama_problem(problem))


def member(name: str, value: object) -> bytes:
    """One more member of an object that has some."""
    return b',"%b":%b' % (name.encode(), _encode(value))


def _line(head: bytes, *members: bytes) -> bytes:
    return b'%b%b",%b}\n' % (head, now().encode(), b"".join(members))


def _logprobs(piece: Piece) -> bytes:
    return member("logprobs", to_logprobs(piece.logprobs)) if piece.logprobs else b""


def _done(call: Call, finished: Finished) -> bytes:
    return b',"done":true,%b' % _encode(figures_of(call, finished))[1:-1]
