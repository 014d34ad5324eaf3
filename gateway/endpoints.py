"""Endpoint names, and the globs that match them and model names.

An endpoint's name is its handler's name: `openai.chat`. Policy files allow
endpoints and models by glob; a pattern that starts with `!` denies, and a
denial wins whatever the order.
"""

import re
from collections.abc import Iterable
from functools import lru_cache


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Is `name` allowed by some pattern and denied by none?"""
    return deciding_pattern(name, patterns) is not None


def deciding_pattern(name: str, patterns: Iterable[str]) -> str | None:
    """The pattern that allows `name`, or None if none does or one denies it."""
    allowed: str | None = None
    for pattern in patterns:
        if pattern.startswith("!"):
            if _compiled(pattern[1:]).fullmatch(name):
                return None
        elif allowed is None and _compiled(pattern).fullmatch(name):
            allowed = pattern
    return allowed


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    # `*` is the only wildcard: model names hold brackets and question marks of their own.
    # Runs of `*` are one, so that no pattern can be made to backtrack.
    pieces = re.split(r"\*+", pattern)
    return re.compile(".*".join(re.escape(piece) for piece in pieces), re.DOTALL)
