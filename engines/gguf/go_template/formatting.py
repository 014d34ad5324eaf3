"""Go's `printf`, as far as templates of models use it: %s, %d, %v and %q, with a width or without.

What is formatted is put together of jinja expressions; there is no `format` in the sandbox.
"""

import re
from collections.abc import Iterator, Sequence

from engines.gguf.go_template.syntax import CannotTranslate
from engines.gguf.go_template.values import Value, literal, printed

_VERB = re.compile(r"%(?:(?P<percent>%)|(?P<width>\*|[1-9][0-9]{0,2})?(?P<verb>[sdvq]))")
# What is padded is written twice, so something long in something long would have no end.
_MAX_PADDED_CHARS = 200


def formatted(pattern: str, arguments: Sequence[Value]) -> Value:
    """`printf pattern arguments`. Raises `CannotTranslate` for what is not done here."""
    given = iter(arguments)
    parts = list(_parts(pattern, given))
    if next(given, None) is not None:
        raise CannotTranslate(f"it gives printf {pattern!r:.60} more values than it has places for")
    return Value(f"({' ~ '.join(parts) or literal('')})", "text")


def _parts(pattern: str, given: Iterator[Value]) -> Iterator[str]:
    at = 0
    for found in _VERB.finditer(pattern):
        yield from _text(pattern, at, found.start())
        at = found.end()
        if found["percent"]:
            yield literal("%")
            continue
        width = _next(pattern, given).code if found["width"] == "*" else found["width"]
        shown = _shown(found["verb"], _next(pattern, given))
        yield _padded(shown, width) if width else shown
    yield from _text(pattern, at, len(pattern))


def _text(pattern: str, start: int, end: int) -> Iterator[str]:
    text = pattern[start:end]
    if "%" in text:
        raise CannotTranslate(
            f"it uses printf {pattern!r:.60}, of which only %s, %d, %v, %q are done"
        )
    if text:
        yield literal(text)


def _next(pattern: str, given: Iterator[Value]) -> Value:
    value = next(given, None)
    if value is None:
        raise CannotTranslate(
            f"it gives printf {pattern!r:.60} fewer values than it has places for"
        )
    return value


def _shown(verb: str, value: Value) -> str:
    # JSON quotes as Go does but for some characters that nobody sees.
    return f"(({value.code}) | tojson)" if verb == "q" else f"({printed(value)})"


def _padded(shown: str, width: str) -> str:
    if len(shown) + len(width) > _MAX_PADDED_CHARS:
        raise CannotTranslate("it pads what is too long to be said twice")
    return f"(' ' * (({width}) - (({shown} ~ '') | length)) ~ {shown})"
