"""Fetches parts of one file into their places, again and again until they are whole.

A server may break off, send less, more, or something else than it was asked
for. Less is asked for again from where it ended; more, and other ranges than
asked for, end the download.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
from msgspec import Struct

from engines.errors import Unavailable
from engines.gguf.files.digests import Digest
from engines.gguf.files.in_thread import in_thread
from engines.gguf.registry.parts import Part
from engines.gguf.registry.version_tag import is_of_version
from engines.gguf.registry.web import Broken, Patience, Refused

OpenRange = Callable[[Mapping[str, str]], AbstractAsyncContextManager[aiohttp.ClientResponse]]

_WRITE_BYTES = 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Wanted(Struct, frozen=True, kw_only=True):
    """A file to fetch. One without a `digest` is whatever comes; `tag` is its version then."""

    key: str  # of letters, digits and dashes: the partial file's name
    size_bytes: int
    digest: Digest | None = None
    tag: str = ""

    @property
    def is_one(self) -> bool:
        """Whether bytes of several answers are surely of one file.

        Of one that has neither a digest nor a tag only a single answer is."""
        return self.digest is not None or bool(self.tag)


class NoRanges(Exception):
    """The server sends whole files only."""


class Transfer:
    """The connections of one download; `path` is the unfinished file."""

    def __init__(
        self, open_range: OpenRange, wanted: Wanted, patience: Patience, path: Path
    ) -> None:
        self._open_range = open_range
        self._wanted = wanted
        self._patience = patience
        self._path = path

    async def fetch(self, part: Part) -> None:
        """Return when the part is whole. Raises `Unavailable`, `NoRanges` and `OSError`."""
        num_failures = 0
        while part.missing_bytes:
            if not self._wanted.is_one:
                part.done = 0
            before = part.next_byte
            try:
                await self._attempt(part)
            except Refused as error:
                raise Unavailable(str(error)) from None
            except Broken as error:
                is_further = part.next_byte > before and self._wanted.is_one
                num_failures = 0 if is_further else num_failures + 1
                if num_failures >= self._patience.max_failures:
                    raise Unavailable(f"{error}; {self._what_is_left}") from None
                await asyncio.sleep(self._patience.delay(max(1, num_failures)))

    @property
    def _what_is_left(self) -> str:
        if self._wanted.is_one:
            return "what was fetched is kept, and the next pull goes on from there"
        return (
            "its server does not say which version of the file it sends, so a pull cannot go on "
            "from what was fetched"
        )

    async def _attempt(self, part: Part) -> None:
        headers: dict[str, str] = {}
        if self._wanted.is_one:
            headers["Range"] = f"bytes={part.next_byte}-{part.end - 1}"
        if self._wanted.tag:
            headers["If-Range"] = self._wanted.tag
        async with self._open_range(headers) as response:
            self._check(response, part)
            waiting = bytearray()
            try:
                async for chunk in response.content.iter_any():
                    if len(waiting) + len(chunk) > part.missing_bytes:
                        raise Unavailable(f"{response.url.host} sends more than it was asked for")
                    waiting += chunk
                    if len(waiting) >= _WRITE_BYTES:
                        await self._write(part, waiting)
            finally:
                # What came before a connection broke, or we gave up, is as good as the rest.
                await self._write(part, waiting)
        if part.missing_bytes:
            raise Broken(f"{response.url.host} sends less than it was asked for")

    def _check(self, response: aiohttp.ClientResponse, part: Part) -> None:
        """See that what comes next is what was asked for."""
        host = response.url.host
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Unavailable(f"{host} sends the file encoded, which was not asked for")
        if self._wanted.tag and not is_of_version(response.headers, self._wanted.tag):
            raise Unavailable(f"the file at {host} has changed meanwhile: pull again")
        if response.status != 206:
            if part.start != 0 or part.end != self._wanted.size_bytes:
                raise NoRanges
            part.done = 0
        else:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            size = str(self._wanted.size_bytes)
            if found is None or int(found[1]) != part.next_byte or found[3] not in (size, "*"):
                said = response.headers.get("Content-Range", "nothing")
                raise Unavailable(
                    f"{host} was asked for bytes {part.next_byte} to {part.end - 1} of {size} and "
                    f"sends {said!r:.100}"
                )
        length = response.content_length
        if length is not None and length > part.missing_bytes:
            raise Unavailable(
                f"{host} wants to send {length} bytes where {part.missing_bytes} are missing"
            )

    async def _write(self, part: Part, waiting: bytearray) -> None:
        if not waiting:
            return
        data, at = bytes(waiting), part.next_byte
        waiting.clear()
        part_before = part.done

        def write() -> None:
            _write_at(self._path, data, at)
            part.done = part_before + len(data)

        await in_thread(write)


def _write_at(path: Path, data: bytes, at: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with contextlib.closing(os.fdopen(handle, "wb", buffering=0)) as file:
        view = memoryview(data)
        while view:
            written = os.pwrite(file.fileno(), view, at)
            at += written
            view = view[written:]
