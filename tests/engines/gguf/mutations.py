"""Spoils the header of a GGUF file in ways that follow from a seed."""

import random
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_ODD_NUMBERS = (
    0, 1, 2, 3, 7, 31, 33, 127, 255, 256, 511, 513, 1023, 65_535, 2**20, 2**24 + 1, 2**31 - 1,
    2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 2**12, 2**64 - 1,
)  # fmt: skip
_ODD_TEXTS = (b"", b"\0", b"\xff\xfe", b"A" * 70, b"../../x", b"llama\0x", b"%s%n", b"\xed\xa0\x80")


class Place(NamedTuple):
    """A field of the header: where it is, how long, and what it is."""

    start: int
    size: int
    what: str  # "count", "length", "text", "type", "value", "shape", "tensor_type", "offset"


def places(content: bytes) -> list[Place]:
    """Every field of a sound file's header, in order."""
    found = [Place(0, 4, "magic"), Place(4, 4, "version"), Place(8, 8, "count")]
    found.append(Place(16, 8, "count"))
    num_tensors, num_keys = struct.unpack_from("<QQ", content, 8)
    at = 24
    for _ in range(num_keys):
        at = _text(content, at, found)
        (kind,) = struct.unpack_from("<I", content, at)
        found.append(Place(at, 4, "type"))
        at = _value(content, at + 4, kind, found)
    for _ in range(num_tensors):
        at = _text(content, at, found)
        (num_dimensions,) = struct.unpack_from("<I", content, at)
        found.append(Place(at, 4, "count"))
        found += [Place(at + 4 + 8 * n, 8, "shape") for n in range(num_dimensions)]
        at += 4 + 8 * num_dimensions
        found += [Place(at, 4, "tensor_type"), Place(at + 4, 8, "offset")]
        at += 12
    return found


def _text(content: bytes, at: int, found: list[Place]) -> int:
    (length,) = struct.unpack_from("<Q", content, at)
    found += [Place(at, 8, "length"), Place(at + 8, length, "text")]
    return at + 8 + length


def _value(content: bytes, at: int, kind: int, found: list[Place]) -> int:
    if kind == 8:
        return _text(content, at, found)
    if kind != 9:
        found.append(Place(at, _SIZES[kind], "value"))
        return at + _SIZES[kind]
    item_kind, length = struct.unpack_from("<IQ", content, at)
    found += [Place(at, 4, "type"), Place(at + 4, 8, "count")]
    at += 12
    for _ in range(length):
        at = _value(content, at, item_kind, found)
    return at


def mutations(content: bytes, number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many spoilt copies, each with what was done to it; most have one fault, some have more."""
    source = random.Random(seed)
    fields = places(content)
    header_end = fields[-1].start + fields[-1].size
    # Half of a vocabulary's fields say nothing of the rest.
    by_what: dict[str, list[Place]] = {}
    for field in fields:
        by_what.setdefault(field.what, []).append(field)
    ways: list[tuple[str, Callable[[random.Random, bytes], bytes]]] = [
        ("number", lambda s, c: _renumbered(s, c, s.choice(by_what[s.choice(sorted(by_what))]))),
        ("text", lambda s, c: _retexted(s, c, by_what)),
        ("bytes", lambda s, c: _flipped(s, c, header_end)),
        ("cut", lambda s, c: c[: s.randrange(len(c))]),
        ("moved", lambda s, c: _moved(s, c, header_end)),
        ("twice", lambda s, c: _twice(s, c, fields)),
        ("next", lambda s, c: _stepped(s, c, s.choice(by_what[s.choice(sorted(by_what))]))),
    ]
    for index in range(number):
        spoilt, names = content, list[str]()
        for _ in range(1 if index % 4 else source.randint(2, 4)):
            name, spoil = source.choice(ways)
            spoilt = spoil(source, spoilt)
            names.append(name)
        yield f"{index}:{'+'.join(names)}", spoilt


def _renumbered(source: random.Random, content: bytes, place: Place) -> bytes:
    size = min(place.size, 8) or 1
    value = source.choice(_ODD_NUMBERS) % 256**size
    return _replaced(content, place.start, size, value.to_bytes(size, "little"))


def _stepped(source: random.Random, content: bytes, place: Place) -> bytes:
    """One more or one less than it was."""
    size = min(place.size, 8) or 1
    value = int.from_bytes(content[place.start : place.start + size], "little")
    return _replaced(
        content,
        place.start,
        size,
        ((value + source.choice((-1, 1))) % 256**size).to_bytes(size, "little"),
    )


def _retexted(source: random.Random, content: bytes, by_what: dict[str, list[Place]]) -> bytes:
    place = source.choice(by_what["text"])
    text = source.choice(_ODD_TEXTS)
    return _replaced(content, place.start - 8, place.size + 8, struct.pack("<Q", len(text)) + text)


def _flipped(source: random.Random, content: bytes, end: int) -> bytes:
    spoilt = bytearray(content)
    for _ in range(source.randint(1, 8)):
        at = source.randrange(min(end, len(spoilt)) or 1)
        if at < len(spoilt):
            spoilt[at] ^= 1 << source.randrange(8)
    return bytes(spoilt)


def _moved(source: random.Random, content: bytes, end: int) -> bytes:
    """A piece of the header is put somewhere else in it."""
    start = source.randrange(end)
    piece = content[start : start + source.randint(1, 64)]
    rest = content[:start] + content[start + len(piece) :]
    to = source.randrange(end)
    return rest[:to] + piece + rest[to:]


def _twice(source: random.Random, content: bytes, fields: list[Place]) -> bytes:
    """A field's bytes are there once more."""
    place = source.choice(fields)
    end = place.start + place.size
    return content[:end] + content[place.start : end] + content[end:]


def _replaced(content: bytes, start: int, size: int, new: bytes) -> bytes:
    return content[:start] + new + content[start + size :]
