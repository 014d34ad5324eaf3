"""Asks for vectors in OpenAI's words, and reads them."""

import base64
import struct
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from engines.protocol import EmbedRequest
from engines.remote.answers import broken


class _Entry(Struct, frozen=True):
    embedding: Sequence[float] | str
    index: int = -1


class _List(Struct, frozen=True):
    data: Sequence[_Entry]


def spoken_embedding(request: EmbedRequest) -> bytes:
    """The body that asks for a request's vectors."""
    inputs = list(request.inputs)
    fields: dict[str, object] = {
        "model": request.model,
        "input": inputs,
        "encoding_format": "float",
    }
    if request.dimensions is not None:
        fields["dimensions"] = request.dimensions
    return msgspec.json.encode(fields)


def read_vectors(body: bytes, num_inputs: int) -> Sequence[Sequence[float]]:
    """The vectors of an answer, in the order of the inputs. Raises `Unavailable`."""
    try:
        entries = msgspec.json.decode(body, type=_List).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise broken("it has no vectors") from None
    if len(entries) != num_inputs:
        raise broken(f"it has {len(entries)} vectors for {num_inputs} inputs")
    if sorted(entry.index for entry in entries) == list(range(num_inputs)):
        entries = sorted(entries, key=lambda entry: entry.index)
    return [_vector(entry.embedding) for entry in entries]


def _vector(given: Sequence[float] | str) -> Sequence[float]:
    if not isinstance(given, str):
        return given
    try:
        packed = base64.b64decode(given, validate=True)
        return struct.unpack(f"<{len(packed) // 4}f", packed)
    except (ValueError, struct.error):
        raise broken("it has a vector that is neither numbers nor base64") from None
