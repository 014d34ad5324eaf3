"""Reads a request's body: bounded in bytes and shape, and decoded to the endpoint's Struct.

Everything that can be wrong with a body is a 400, 413 or 415 that names the
field; nothing here is ever a 5xx.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from gateway.api.body_errors import lowered, named, shortened
from gateway.api.body_shape import MAX_DEPTH, check_shape
from gateway.call import Call
from gateway.errors import BadRequest, BodyTooLarge, MediaTypeUnknown

Body = TypeVar("Body")

LARGE_BYTES = 1024 * 1024  # from here on, decoding leaves the event loop to others


class Incoming(Protocol):
    """What is read of a request here: Litestar's, or one that did not come by it."""

    @property
    def scope(self) -> Any: ...
    @property
    def receive(self) -> Any: ...


class ClientGone(BaseException):
    """The client hung up before its body was read.

    Like a cancellation it is no `Exception`: nobody is there to be answered, so no
    handler of errors is to see it before the middleware does.
    """


async def read_body(
    request: Incoming, decoder: msgspec.json.Decoder[Body], *, max_bytes: int
) -> Body:
    """Read and decode the JSON body. Raises `BadRequest`, `BodyTooLarge`, `MediaTypeUnknown`."""
    _, body = await read_either(request, lambda _: decoder, max_bytes=max_bytes)
    return body


async def read_either(
    request: Incoming,
    choose: Callable[[str], msgspec.json.Decoder[Body]],
    *,
    max_bytes: int,
) -> tuple[bytes, Body]:
    """Read the JSON body and decode it with what `choose` says of the model that it names.

    Raises `BadRequest`, `BodyTooLarge`, `MediaTypeUnknown`.
    """
    _check_type(_headers(request).get("content-type", ""))
    raw = await read_raw(request, max_bytes=max_bytes)
    if len(raw) > LARGE_BYTES:
        return raw, await asyncio.to_thread(_decoded, raw, choose)
    return raw, _decoded(raw, choose)


def _decoded(raw: bytes, choose: Callable[[str], msgspec.json.Decoder[Body]]) -> Body:
    return decode_body(raw, choose(_model_in(raw)))


def decode_body(raw: bytes, decoder: msgspec.json.Decoder[Body]) -> Body:
    """Decode a JSON body. Raises `BadRequest`."""
    if not raw.strip():
        raise BadRequest("the body is empty; send a JSON object")
    check_shape(raw)
    try:
        body = decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise named(error, decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {lowered(str(error))}") from None
    except RecursionError:
        raise BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    _check_repeated_keys(raw)
    return body


def _headers(request: Incoming) -> Mapping[str, str]:
    """The call's; Litestar would make an object of them first."""
    call: Call = request.scope["state"]["call"]
    return call.headers


def _check_type(content_type: str) -> None:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return
    # A web page may send text/plain across origins without asking first; so JSON
    # that is not called JSON is not read.
    raise MediaTypeUnknown(
        f"the body's content-type is {content_type[:100]!r}; send application/json"
    )


def _check_encoding(encoding: str) -> None:
    # A kilobyte can unpack to a gigabyte, and no client that we know of packs its requests.
    if encoding and encoding.strip().lower() not in ("", "identity"):
        raise MediaTypeUnknown(
            f"the body's content-encoding is {encoding[:100]!r}; send it as it is",
            headers={"accept-encoding": "identity"},
        )


async def read_raw(request: Incoming, *, max_bytes: int) -> bytes:
    """The body's bytes, whatever they are. Raises `BodyTooLarge`, `MediaTypeUnknown`."""
    _check_head(request, max_bytes)
    first, has_more = await _piece(request)
    if not has_more and len(first) <= max_bytes:  # nearly always
        return first
    return b"".join([piece async for piece in _pieces(request, first, has_more, max_bytes)])


async def body_pieces(request: Incoming, *, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """The same as it arrives, so that it need not be in memory at once."""
    _check_head(request, max_bytes)
    first, has_more = await _piece(request)
    async for piece in _pieces(request, first, has_more, max_bytes):
        yield piece


async def _pieces(
    request: Incoming,
    piece: bytes,
    has_more: bool,  # noqa: FBT001 - what came with the piece
    max_bytes: int,
) -> AsyncGenerator[bytes, None]:
    size = len(piece)
    while size <= max_bytes:
        yield piece
        if not has_more:
            return
        piece, has_more = await _piece(request)
        size += len(piece)
    raise _too_large(max_bytes)


async def _piece(request: Incoming) -> tuple[bytes, bool]:
    """The next piece of the body, and whether there are more. Raises `ClientGone`."""
    while (message := await request.receive())["type"] != "http.request":
        if message["type"] == "http.disconnect":
            raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


def _check_head(request: Incoming, max_bytes: int) -> None:
    headers = _headers(request)
    if "content-encoding" in headers:
        _check_encoding(headers["content-encoding"])
    if _declared(headers) > max_bytes:
        raise _too_large(max_bytes)


def declared_bytes(request: Incoming) -> int:
    """How long the body is, as far as its head says; else 0."""
    return _declared(_headers(request))


def _declared(headers: Mapping[str, str]) -> int:
    declared = headers.get("content-length", "")
    return int(declared) if declared.isdigit() else 0


def _model_in(raw: bytes) -> str:
    """The model that a body names; empty where it names none or cannot be read."""
    try:
        return _MODEL_DECODER.decode(raw).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


class _HasModel(msgspec.Struct, frozen=True):
    model: str = ""


_MODEL_DECODER = msgspec.json.Decoder(_HasModel)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than this server's limit of {max_bytes} bytes")


def _check_repeated_keys(raw: bytes) -> None:
    # Readers differ in which of two values they take; whoever checked this body
    # on the way may have seen the other one. msgspec takes the last and says nothing.
    _KEY_CHECKER.decode(raw.decode())


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) == len(pairs):
        return
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise BadRequest(
                f"the key {shortened(key)!r} appears twice in one object", param=shortened(key)
            )
        seen.add(key)


_KEY_CHECKER = json.JSONDecoder(object_pairs_hook=_distinct, parse_int=len, parse_float=len)
