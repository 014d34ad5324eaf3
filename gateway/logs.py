"""Sets up logging: one line for each event, for people or for machines.

    log = structlog.get_logger()
    log.info("model_loaded", engine="laptop", seconds=1.9)

Lines of a call say which (`call`). Whatever outlives the call that begins it is begun in
an empty `Context()`, or its lines would name that call for ever.

Our own events and those of libraries take the same way to standard error. The
last step masks whatever looks like a credential. Nothing should log one; this
is for the day when something does.
"""

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# What these say at INFO is about every request, and at DEBUG it holds headers and
# SQL parameters. That is never wanted, not even with PENSTOCK_LOG_LEVEL=debug.
QUIET = (
    "aiohttp",
    "aiosqlite",
    "alembic",
    "asyncio",
    "httpcore",
    "httpx",
    "litestar",
    "multipart",
    "sqlalchemy",
    "uvicorn",
)

MASK = "***"

_SECRET_NAMES = frozenset(
    (
        "api-key",
        "api_key",
        "authorization",
        "cookie",
        "password",
        "pepper",
        "proxy-authorization",
        "secret",
        "set-cookie",
        "token",
        "x-api-key",
        "x-goog-api-key",
    )
)
_SIGNS = (
    "sk-", "hf_", "eyj", "bearer", "basic", "authorization", "api-key", "api_key", "cookie", "://",
)  # fmt: skip
# A quote, and what may stand before it in a text inside a text.
_QUOTE = r"""\\?["']?"""
_SECRETS = re.compile(
    rf"""
      (?<![A-Za-z0-9]) sk-[A-Za-z0-9_-]{{8,}}                       # a key, ours or another's
    | (?<![A-Za-z0-9]) hf_[A-Za-z0-9]{{16,}}                         # of HuggingFace
    | (?<![A-Za-z0-9_-]) eyJ[A-Za-z0-9_-]{{8,}} (?:\.[A-Za-z0-9_-]*)+ # a token, whole or in part
    | (?<= :// ) [^\s"'/@:]* : [^\s"'/@]+ (?= @ )                   # name and password of a URL
    | (?i: (?<=bearer\ ) | (?<=basic\ ) ) [A-Za-z0-9._~+/=-]{{6,}}  # a credential by its scheme
    | (?i: (?P<name> (?:proxy-)?authorization | (?:x-)?(?:goog-)?api[_-]key | cookie )
           (?P<between> {_QUOTE} \s* [:=,] \s* (?:b(?=\\?["']))? {_QUOTE} )
           (?P<scheme> (?:bearer | basic | token)\s+ )? )
      [^\s"',;\\\])}}]+
    """,
    re.VERBOSE,
)


def configure_logs(level: str, format: str, stream: TextIO | None = None) -> None:
    """Send every log line to `stream`, else standard error. May be called again.

    `level` is debug, info, warning or error; `format` is json, console, or auto,
    which is console on a terminal.
    """
    output = stream or sys.stderr
    threshold = logging.getLevelNamesMapping()[level.upper()]
    as_console = format == "console" or (format == "auto" and output.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _mask_named,
    ]
    rendering = _console(output) if as_console else _json()
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(output),
        # A cached logger would not notice a second call of this function.
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def masked(text: str) -> str:
    """`text` with every credential that can be recognised replaced by `***`."""
    # The pattern takes 0.1 ms on a line that holds nothing, these words 1 µs.
    lowered = text.lower()
    if not any(sign in lowered for sign in _SIGNS):
        return text
    return _SECRETS.sub(_mask_found, text)


def _mask_found(found: re.Match[str]) -> str:
    if found["name"] is None:
        return MASK
    return f"{found['name']}{found['between']}{found['scheme'] or ''}{MASK}"


def _mask_named(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace values by their names, wherever in the event they stand."""
    return {
        name: value if name == "exc_info" else _without_secret(name, value)
        for name, value in event.items()
    }


def _without_secret(name: object, value: object) -> object:
    return MASK if _is_secret_name(name) else _without_secrets(value)


def _without_secrets(value: object) -> object:
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).items()
        return {name: _without_secret(name, inner) for name, inner in items}
    if isinstance(value, list | tuple | set | frozenset):
        inners = list(cast("list[object]", value))
        if len(inners) == 2:  # a header, as ASGI writes one
            return [inners[0], _without_secret(*inners)]
        return [_without_secrets(inner) for inner in inners]
    return value


def _is_secret_name(name: object) -> bool:
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    return isinstance(text, str) and text.lower() in _SECRET_NAMES


def _json() -> list[Processor]:
    def line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
        return masked(json.dumps(event, default=repr, skipkeys=True))

    return [structlog.processors.format_exc_info, line]


def _console(output: TextIO) -> list[Processor]:
    render = structlog.dev.ConsoleRenderer(
        colors=output.isatty(),
        # The default prints the locals of every frame: prompts, keys.
        exception_formatter=structlog.dev.plain_traceback,
    )

    def line(logger: WrappedLogger, method: str, event: EventDict) -> str:
        # Once before there are colours, since those stand next to a key like letters of it.
        plain = {name: _printable(value) for name, value in event.items()}
        return masked(render(logger, method, plain))

    return [line]


def _printable(value: object) -> object:
    """Text from a caller must not steer the terminal of whoever reads the log."""
    if not isinstance(value, str):
        return value
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in masked(value)
    )
