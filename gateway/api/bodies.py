"""Reads a request's body: bounded in bytes and shape, and decoded to the endpoint's Struct.

Everything that can be wrong with a body is a 400, 413 or 415 that names the
field; nothing here is ever a 5xx.
"""

import asyncio
import json
from typing import Any, TypeVar

import msgspec
from litestar.connection import Request

from gateway.api.body_errors import named, shortened
from gateway.api.body_shape import MAX_DEPTH, check_shape
from gateway.errors import BadRequest, BodyTooLarge, MediaTypeUnknown

Body = TypeVar("Body")

LARGE_BYTES = 1024 * 1024  # from here on, decoding leaves the event loop to others


class ClientGone(BaseException):
    """The client hung up before its body was read.

    Like a cancellation it is no `Exception`: nobody is there to be answered, so no
    handler of errors is to see it before the middleware does.
    """


async def read_body(
    request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[Body], *, max_bytes: int
) -> Body:
    """Read and decode the JSON body. Raises `BadRequest`, `BodyTooLarge`, `MediaTypeUnknown`."""
    _check_type(request.headers.get("content-type", ""))
    raw = await _read(request, max_bytes)
    if len(raw) > LARGE_BYTES:
        return await asyncio.to_thread(decode_body, raw, decoder)
    return decode_body(raw, decoder)


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
        raise BadRequest(f"the body is not valid JSON: {_lowered(str(error))}") from None
    except RecursionError:
        raise BadRequest(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    _check_repeated_keys(raw)
    return body


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
    if encoding.strip().lower() not in ("", "identity"):
        raise MediaTypeUnknown(
            f"the body's content-encoding is {encoding[:100]!r}; send it as it is",
            headers={"accept-encoding": "identity"},
        )


async def _read(request: Request[Any, Any, Any], max_bytes: int) -> bytes:
    _check_encoding(request.headers.get("content-encoding", ""))
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message["type"] != "http.request":
            continue
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than this server's limit of {max_bytes} bytes")


def _check_repeated_keys(raw: bytes) -> None:
    # Readers differ in which of two values they take; whoever checked this body
    # on the way may have seen the other one. msgspec takes the last and says nothing.
    _KEY_CHECKER.decode(raw.decode())


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) < 2 or len({key for key, _ in pairs}) == len(pairs):
        return
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise BadRequest(
                f"the key {shortened(key)!r} appears twice in one object", param=shortened(key)
            )
        seen.add(key)


_KEY_CHECKER = json.JSONDecoder(object_pairs_hook=_distinct, parse_int=len, parse_float=len)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
