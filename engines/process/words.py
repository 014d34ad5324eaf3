"""What a child writes to standard error becomes lines of the gateway's log.

Our own events cross as JSON behind a record separator (RFC 7464) and keep their
level and fields. Anything else, which is what native libraries, tracebacks and
`print` produce, is one `engine_said` for each line; the last of those are kept,
for they say why a process ended.
"""

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import IO, Any

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

log = structlog.get_logger()

SEPARATOR = b"\x1e"
MAX_LINE_BYTES = 8192
MAX_EVENT_BYTES = 1024 * 1024  # a traceback is in it
MAX_LINES_PER_SECOND = 200
_NUM_LAST_LINES = 8
_MAX_LAST_WORDS = 1500  # characters
_LEVELS = logging.getLevelNamesMapping()


class Words(asyncio.Protocol):
    """Reads one child's output; lives on the event loop."""

    def __init__(self, engine: str) -> None:
        self.ended = asyncio.Event()
        self._engine = engine
        self._line = b""
        self._last: deque[str] = deque(maxlen=_NUM_LAST_LINES)
        self._has_died = False
        self._second = 0
        self._num_lines = 0
        self._transport: asyncio.BaseTransport | None = None

    async def read(self, pipe: IO[bytes]) -> None:
        """Take over the reading end of the child's output."""
        await asyncio.get_running_loop().connect_read_pipe(lambda: self, pipe)

    @property
    def last(self) -> str:
        """The last lines that were no log events, without the stacks of a crash."""
        return "\n".join(self._last)[-_MAX_LAST_WORDS:]

    def close(self) -> None:
        """Stop reading."""
        if self._transport is None:
            self.ended.set()
        else:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._hear(line)
        if len(self._line) > (MAX_EVENT_BYTES if SEPARATOR in self._line else MAX_LINE_BYTES):
            self._hear(self._line)
            self._line = b""

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        if self._line:
            self._hear(self._line)
            self._line = b""
        self.ended.set()

    def _hear(self, line: bytes) -> None:
        # A library may have left its last line unfinished when we logged.
        said, separator, event = line.partition(SEPARATOR)
        if text := _printable(said[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip()):
            if not self._has_died:
                self._last.append(text)
                # What faulthandler writes next is where it was, not why; the log has it.
                self._has_died = text.startswith("Fatal Python error")
            if self._may_log():
                log.info("engine_said", engine=self._engine, text=text)
        if separator and self._may_log():
            self._pass_on(event)

    def _pass_on(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            return
        level = _LEVELS.get(str(event.pop("level", "")).upper(), logging.INFO)
        name = str(event.pop("event", "engine_said"))
        log.log(level, name, **{**event, "engine": self._engine})

    def _may_log(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            dropped = self._num_lines - MAX_LINES_PER_SECOND
            self._second, self._num_lines = second, 0
            if dropped > 0:
                log.warning("engine_lines_dropped", engine=self._engine, lines=dropped)
        self._num_lines += 1
        return self._num_lines <= MAX_LINES_PER_SECOND


def _printable(text: str) -> str:
    """The last words of a start end up on a terminal, which they must not steer."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def log_to_parent(level: int) -> None:
    """Set this process up, which is a child, to log in the way that `Words` reads."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _line],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _line],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # At DEBUG, libraries write what they work on, which here is prompts.
    root.setLevel(max(level, logging.INFO))


def _line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    fields: Mapping[str, Any] = event
    return (SEPARATOR + msgspec.json.encode(fields, enc_hook=repr)).decode("utf-8")
