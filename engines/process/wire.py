"""What a gateway's process and an engine's child say to each other, as msgpack frames.

A frame is its length in four bytes, then one Struct of `ToChild` or `FromChild`. Where a
number has over 64 bits, which is rare and legal in a JSON Schema, the Struct is written as
JSON instead and the length's highest bit is set.

Every call has a number. The parent opens it with `Generate` or `Ask`; what comes
of it comes back in `Batch`es, one for each turn of the child's event loop, all
calls together: a step of the engine is one write and one wake-up.

A stream's text is sent bare, since nearly every item is just that.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from msgspec import Struct

import engines.errors
from engines.errors import EngineError
from engines.process.library_questions import Job, LibraryQuestion
from engines.process.spec import EngineSpec
from engines.protocol import (
    EmbedRequest,
    Event,
    Finished,
    GenerateRequest,
    Progress,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
)
from engines.reranking import RerankRequest
from engines.wire import Relayed

HEADER_BYTES = 4
_IS_JSON = 1 << 31
# Embeddings of a large body fit; four letters that somebody printed are a longer length.
MAX_FRAME_BYTES = 2**30
# How many events of one stream may be under way before its reader has taken some.
WINDOW = 256


class FrameTooLong(Exception):
    """The next frame claims a length that no frame has: what is read is no frame."""


# What the parent asks for besides streams.


class Health(Struct, frozen=True, tag="health"):
    """Answered with a `protocol.Health`."""


class Models(Struct, frozen=True, tag="models"):
    """Answered with a list of `ModelInfo`."""


class Load(Struct, frozen=True, tag="load"):
    """Answered with a `ModelInfo`."""

    model: str
    keep_alive_seconds: float | None = None


class Unload(Struct, frozen=True, tag="unload"):
    """Answered with None."""

    model: str


class Embed(Struct, frozen=True, tag="embed"):
    """Answered with `Embeddings`."""

    request: EmbedRequest


class CountTokens(Struct, frozen=True, tag="count_tokens"):
    """Answered with a number."""

    request: GenerateRequest


class Render(Struct, frozen=True, tag="render"):
    """Answered with a `RenderedPrompt`."""

    request: GenerateRequest


class Rerank(Struct, frozen=True, tag="rerank"):
    """Answered with `Reranking`."""

    request: RerankRequest


class Metrics(Struct, frozen=True, tag="metrics"):
    """Answered with a list of `ModelMetrics`, empty where the engine is not `Measured`."""


Question = (
    Health
    | Metrics
    | Models
    | Load
    | Unload
    | Embed
    | Rerank
    | CountTokens
    | Render
    | LibraryQuestion
)


# Frames of the parent.


class Build(Struct, frozen=True, array_like=True, tag="build"):
    """The first frame: make the engine and start it."""

    name: str
    spec: EngineSpec
    log_level: int


class Ask(Struct, frozen=True, array_like=True, tag="ask"):
    """Open a call that has one answer."""

    call: int
    question: Question
    log_context: dict[str, str] = {}  # what its log lines carry here: the gateway's id of the call


class Generate(Struct, frozen=True, array_like=True, tag="generate"):
    """Open a stream."""

    call: int
    request: GenerateRequest
    log_context: dict[str, str] = {}


class Perform(Struct, frozen=True, array_like=True, tag="perform"):
    """Open a call that tells how far it is, step by step."""

    call: int
    job: Job
    log_context: dict[str, str] = {}


class More(Struct, frozen=True, array_like=True, tag="more"):
    """The reader of a stream has taken so many events."""

    call: int
    num_events: int


class Cancel(Struct, frozen=True, array_like=True, tag="cancel"):
    """Nobody waits for this call any more."""

    call: int


class Close(Struct, frozen=True, array_like=True, tag="close"):
    """Close the engine and exit."""


ToChild = Build | Ask | Generate | Perform | More | Cancel | Close


# Frames of the child.


class Fault(Struct, frozen=True, tag="fault"):
    """An error; `kind` is the name of its class in engines/errors.py, empty if it has none."""

    UNEXPECTED: ClassVar[str] = ""

    kind: str
    message: str
    fields: dict[str, str | int | float | bool | None] = {}


class Answer(Struct, frozen=True, tag="answer"):
    """The answer to an `Ask`, in msgpack; whoever asked knows its type."""

    value: bytes


_FromStream = str | Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished
Item = _FromStream | Progress | Fault | Answer


class Ready(Struct, frozen=True, array_like=True, tag="ready"):
    """The engine has started."""


class NotReady(Struct, frozen=True, array_like=True, tag="not_ready"):
    """The engine did not start, or can work no more, and why; the child is to be ended."""

    fault: Fault


class Batch(Struct, frozen=True, array_like=True, tag="batch"):
    """What came of calls since the last batch, in order."""

    items: list[tuple[int, Item]]


FromChild = Ready | NotReady | Batch
Frame = TypeVar("Frame", ToChild, FromChild)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays, which an engine may leave in its answers."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent between processes")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain)
_JSON_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
# What `encode` and `framed` raise for what cannot be written, or is nested too deeply.
UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)


def encode(value: object) -> bytes:
    """A value's msgpack. Raises one of `UNWRITABLE`."""
    return _ENCODER.encode(value)


def framed(frame: ToChild | FromChild) -> bytearray:
    """The frame with its length before it. Raises one of `UNWRITABLE`."""
    buffer = bytearray(HEADER_BYTES)
    is_json = 0
    try:
        _ENCODER.encode_into(frame, buffer, HEADER_BYTES)
    except OverflowError:
        _JSON_ENCODER.encode_into(frame, buffer, HEADER_BYTES)
        is_json = _IS_JSON
    length = len(buffer) - HEADER_BYTES
    if length > MAX_FRAME_BYTES:
        raise OverflowError(f"{length} bytes are more than the {MAX_FRAME_BYTES} of a frame")
    buffer[:HEADER_BYTES] = (length | is_json).to_bytes(HEADER_BYTES, "little")
    return buffer


class FrameReader(Generic[Frame]):
    """Cuts a stream of bytes into frames again, and reads them as a `kind`."""

    def __init__(self, kind: Any) -> None:
        """`kind` is `ToChild` or `FromChild`; no annotation can say that of a union."""
        self._buffer = bytearray()
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._decode_json = msgspec.json.Decoder(kind).decode

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raises `FrameTooLong` and `msgspec.MsgspecError`."""
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            body = start + HEADER_BYTES
            header = int.from_bytes(buffer[start:body], "little")
            length = header & ~_IS_JSON
            if length > MAX_FRAME_BYTES:
                raise FrameTooLong(f"a frame of {length} bytes")
            if len(buffer) - body < length:
                break
            start = body + length
            whole = bytes(memoryview(buffer)[body:start])
            yield self._decode_json(whole) if header & _IS_JSON else self._decode(whole)
        del buffer[:start]


def packed(event: Event) -> Item:
    """An event as it is sent."""
    if isinstance(event, TextDelta) and not event.logprobs:
        return event.text
    # Only a remote engine relays, and that has no process of its own.
    assert not isinstance(event, Relayed)
    return event


def fault_of(error: EngineError) -> Fault:
    """An error as it is sent: with all its fields that are plain values."""
    kind = next(c.__name__ for c in type(error).__mro__ if _KINDS.get(c.__name__) is c)
    fields = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, str | int | float | bool | None)
    }
    return Fault(kind, error.message, fields)


def error_of(fault: Fault) -> Exception:
    """The error that a fault was made of; one that is no `EngineError` for an unexpected one."""
    kind = _KINDS.get(fault.kind)
    if kind is None:
        return RuntimeError(fault.message)
    # Not through __init__: each class has its own, and puts its message together there.
    error = kind.__new__(kind, fault.message)
    vars(error).update(fault.fields)
    return error


_KINDS: dict[str, type[EngineError]] = {
    name: found
    for name, found in vars(engines.errors).items()
    if isinstance(found, type) and issubclass(found, EngineError)
}
