"""How a policy's problems are worded: where, what, and the way out.

    models.toml: [chat-small] targets[0]: unknown key "wieght" (did you mean "weight"?)

Nothing here ever shows the value of a secret; see secrets.py.
"""

import datetime
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import cast

from msgspec import Struct

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = 60  # characters of a value or name in a message


class PolicyInvalid(ValueError):
    """A policy directory that cannot be used; `problems` holds every reason, not just one."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class Place(Struct, frozen=True):
    """Where in a policy something stands: file, table, and the keys down from there."""

    file: str
    table: str | None = None
    path: str = ""

    def key(self, name: str) -> "Place":
        """One key further down."""
        dotted = f"{self.path}.{bare(name)}" if self.path else bare(name)
        return Place(self.file, self.table, dotted)

    def item(self, index: int) -> "Place":
        """One item of the list that stands here."""
        return Place(self.file, self.table, f"{self.path}[{index}]")

    def problem(self, statement: str) -> str:
        """The whole sentence."""
        keys = " ".join(part for part in (header(self.table), self.path) if part)
        return f"{self.file}: {keys}: {statement}" if keys else f"{self.file}: {statement}"


def header(table: str | None) -> str:
    """A table's name as its file writes it: `[chat-small]`, `["qwen3:0.6b"]`."""
    return "" if table is None else f"[{bare(table)}]"


def bare(name: str) -> str:
    """A key as TOML writes it: in quotes only where it needs them."""
    return name if _BARE_KEY.fullmatch(name) else quoted(name)


def quoted(text: str) -> str:
    """`text` in double quotes, on one line and not too long."""
    return json.dumps(shortened(text), ensure_ascii=False)


def shown(value: object) -> str:
    """A TOML value in few characters."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(cast(list[object], value))}"
    if isinstance(value, int) and abs(value) >= 10**_SHOWN:
        return "a number of very many digits"
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return shortened(str(value))


def shortened(text: str) -> str:
    """At most sixty characters of `text`."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` was probably meant to be; None if two are as close."""
    # Comparing takes the product of both lengths: nobody means a name this long.
    if len(name) > 200:
        return None
    by_lower = {candidate.lower(): candidate for candidate in sorted(set(known))}
    close = difflib.get_close_matches(name.lower(), by_lower, n=2, cutoff=0.6)
    if not close or (len(close) == 2 and _ratio(name, close[0]) == _ratio(name, close[1])):
        return None
    return by_lower[close[0]]


def _ratio(name: str, candidate: str) -> float:
    # The order of arguments is that of get_close_matches: the ratio is not symmetric.
    return difflib.SequenceMatcher(None, candidate, name.lower()).ratio()


def way_out(name: str, known: Iterable[str], *, table: bool = False) -> str:
    """` (did you mean "x"?)`, else ` (there are: a, b)`, else nothing."""
    names = sorted(set(known))
    if (meant := nearest(name, names)) is not None:
        return f" (did you mean {header(meant) if table else quoted(meant)}?)"
    return f" ({there_are(names)})" if names else ""


def there_are(names: Iterable[str]) -> str:
    """`there are: a, b, c`; with very many names, the first dozen and how many more."""
    ordered = sorted(set(names))
    if not ordered:
        return "there are none"
    listed = ", ".join(_readable(name) for name in ordered[:12])
    more = f" and {len(ordered) - 12} more" if len(ordered) > 12 else ""
    return f"there are: {listed}{more}"


def _readable(name: str) -> str:
    """A name as it is, or in quotes where it would break the line or not be seen."""
    return shortened(name) if name and name.isprintable() else quoted(name)
