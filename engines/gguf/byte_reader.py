"""Reads the bytes of a GGUF file from its start, never more of them than it must.

Every count and length is checked before anything is made of it, so a file that
lies costs a message and not memory.
"""

import os
import struct
from collections.abc import Callable
from typing import NoReturn

MAX_HEADER_BYTES = 64 * 2**20
MAX_STRING_BYTES = 16 * 2**20
MAX_ARRAY_ITEMS = 4 * 2**20
MAX_TOKENS = 2**20

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_CHUNK_BYTES = 2**20


class MalformedGguf(Exception):
    """The file is no GGUF model that is safe to load; `message` names file, field and value."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def malformed(file_name: str, what: str, value: object, expected: object) -> MalformedGguf:
    """The error for a field of `file_name` that is not as it has to be."""
    message = f"{what} is {_shown(value)}; expected {expected}"
    return MalformedGguf(f"{file_name}: {message if message.isprintable() else ascii(message)}")


def _shown(value: object) -> str:
    # A file's own text must neither break the line nor colour a terminal.
    text = value if isinstance(value, str) and value and value.isprintable() else repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"


class ByteReader:
    """A cursor over the start of one open file; holds what it has read so far."""

    def __init__(self, descriptor: int, name: str, size_bytes: int) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self.position = 0
        self._descriptor = descriptor
        self._data = bytearray()
        self._num_strings = 0

    def fail(self, what: str, value: object, expected: object) -> NoReturn:
        raise malformed(self.name, what, value, expected)

    def take(self, num_bytes: int, what: str) -> bytes:
        self._fill(self.position + num_bytes, what)
        taken = bytes(self._data[self.position : self.position + num_bytes])
        self.position += num_bytes
        return taken

    def skip(self, num_bytes: int, what: str) -> None:
        self._fill(self.position + num_bytes, what)
        self.position += num_bytes

    def u32(self, what: str) -> int:
        return _U32.unpack(self.take(4, what))[0]

    def u64(self, what: str) -> int:
        return _U64.unpack(self.take(8, what))[0]

    def count(self, what: str, most: int) -> int:
        value = self.u64(what)
        if value > most:
            self.fail(what, value, f"at most {most}")
        return value

    def string(self, what: str, max_bytes: int) -> str:
        text = self.take(self.count(f"the length of {what}", max_bytes), what)
        try:
            return text.decode()
        except UnicodeDecodeError:
            self.fail(what, text[:40], "valid UTF-8")

    def name_string(self, what: str, max_bytes: int) -> str:
        """A string that C code will handle as a name: neither empty nor with a NUL in it."""
        text = self.string(what, max_bytes)
        if not text or "\0" in text:
            self.fail(what, text, "a name of at least one character, without NUL")
        return text

    def skip_strings(self, length: int, key: str) -> None:
        """Step over `length` strings without making objects of them."""
        self._num_strings += length
        if self._num_strings > MAX_ARRAY_ITEMS:
            self.fail(f"the length of array {key!r}", length, f"{MAX_ARRAY_ITEMS} strings in all")
        unpack: Callable[[bytearray, int], tuple[int]] = _U64.unpack_from
        position = self.position
        for number in range(length):
            if position + 8 > len(self._data):
                self._fill(position + 8, f"string {number} of array {key!r}")
            (num_bytes,) = unpack(self._data, position)
            if num_bytes > MAX_STRING_BYTES:
                what = f"the length of string {number} of array {key!r}"
                self.fail(what, num_bytes, f"at most {MAX_STRING_BYTES}")
            position += 8 + num_bytes
        self._fill(position, f"the last string of array {key!r}")
        self.position = position

    def count_distinct(self, length: int, key: str) -> int:
        """Step over `length` strings and say how many differ, as llama.cpp reads them."""
        if length > MAX_TOKENS:
            self.fail(f"the length of array {key!r}", length, f"at most {MAX_TOKENS}")
        position = self.position
        self.skip_strings(length, key)
        seen: set[bytes] = set()
        for number in range(length):
            (num_bytes,) = _U64.unpack_from(self._data, position)
            text = bytes(self._data[position + 8 : position + 8 + num_bytes])
            # llama.cpp reads up to the first NUL, and gives an empty token this name.
            seen.add(text.partition(b"\0")[0] or b"[EMPTY_%d]" % number)
            position += 8 + num_bytes
        return len(seen)

    def _fill(self, end: int, what: str) -> None:
        """Have the file's first `end` bytes in memory."""
        if end > self.size_bytes:
            self.fail(f"the end of {what}", f"byte {end}", f"a file of at most {self.size_bytes}")
        if end > MAX_HEADER_BYTES:
            self.fail(f"the end of {what}", f"byte {end}", f"at most byte {MAX_HEADER_BYTES}")
        while len(self._data) < end:
            chunk = os.read(self._descriptor, max(_CHUNK_BYTES, end - len(self._data)))
            if not chunk:
                self.fail("the file", f"{len(self._data)} bytes long", "a file that stays as it is")
            self._data += chunk
