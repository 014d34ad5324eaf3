"""Reads `tokenizer.model`, SentencePiece's own file, as far as llama.cpp needs it.

It is a protocol buffer; the fields are those of sentencepiece_model.proto: `pieces` is
number 1 of the model (text 1, score 2, type 3), `trainer_spec` 2 (model_type 3),
`normalizer_spec` 3 (add_dummy_prefix 3).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engines.checkpoint.checkpoint_errors import CheckpointUnavailable, CheckpointUnsupported

MAX_BYTES = 64 * 2**20
_BPE = 2
_NORMAL = 1


class Piece(NamedTuple):
    """A token; `type` is GGUF's number too, which took SentencePiece's."""

    text: str
    score: float
    type: int


class SentencePieces(NamedTuple):
    """A vocabulary; `has_space_prefix`: a space is thought before each text."""

    pieces: list[Piece]
    has_space_prefix: bool


def read_sentencepiece(path: Path) -> SentencePieces:
    """Read a tokenizer.model. Raises `CheckpointUnavailable`, `CheckpointUnsupported`."""
    content = path.read_bytes() if path.stat().st_size <= MAX_BYTES else b""
    pieces: list[Piece] = []
    has_space_prefix, model_type = True, 1
    try:
        for number, value in _fields(content):
            if number == 1 and isinstance(value, bytes):
                pieces.append(_piece(value))
            elif number == 2 and isinstance(value, bytes):
                model_type = next((v for n, v in _fields(value) if n == 3), model_type)
            elif number == 3 and isinstance(value, bytes):
                has_space_prefix = bool(next((v for n, v in _fields(value) if n == 3), 1))
    except (ValueError, IndexError, struct.error):
        pieces = []
    if not pieces:
        raise CheckpointUnavailable(f"{path.name} is no SentencePiece model; download it again")
    if model_type != _BPE:
        raise CheckpointUnsupported(
            f"{path.name} is of SentencePiece's type {model_type}; llama.cpp knows this "
            "architecture with type 2, BPE, only"
        )
    return SentencePieces(pieces, has_space_prefix)


def _piece(content: bytes) -> Piece:
    text, score, kind = "", 0.0, _NORMAL
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            text = value.decode()
        elif number == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    if not 1 <= kind <= 6:
        raise ValueError(kind)
    return Piece(text, score, kind)


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: a number, or the bytes of what is fixed or has a length."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            if kind != 2:
                raise ValueError(kind)
            length, at = _varint(content, at)
        if at + length > len(content):
            raise ValueError(length)
        yield key >> 3, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError(shift)
