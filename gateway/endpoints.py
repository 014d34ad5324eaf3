"""Endpoint names, and the globs that match them and model names.

An endpoint's name is its handler's name: `openai.chat`. Policy files allow
endpoints and models by glob; a pattern that starts with `!` denies, and a
denial wins whatever the order.
"""

from collections.abc import Iterable
from functools import lru_cache

ADMIN = "admin"  # a role, and the dialect that needs it
# Every call asks the same of the same lists. Longer names than any model has are callers'
# inventions, and are not kept.
MAX_REMEMBERED = 200
# What these do to the models of an engine, it does to everybody.
_MANAGING = frozenset(
    {
        "ollama.blobs",
        "ollama.copy",
        "ollama.create",
        "ollama.delete",
        "ollama.pull",
        "ollama.push",
    }
)


def needs_admin(endpoint: str) -> bool:
    """Is it for callers with the role admin only, whatever a team's lists say?"""
    return endpoint.partition(".")[0] == ADMIN or endpoint in _MANAGING


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Is `name` allowed by some pattern and denied by none?"""
    return deciding_pattern(name, patterns) is not None


def is_denied(name: str, patterns: Iterable[str]) -> bool:
    """Does some pattern deny `name`?"""
    return any(pattern.startswith("!") and _fits(name, pattern[1:]) for pattern in patterns)


def deciding_pattern(name: str, patterns: Iterable[str]) -> str | None:
    """The pattern that allows `name`, or None if none does or one denies it."""
    decide = _decided if len(name) <= MAX_REMEMBERED else _decided.__wrapped__
    return decide(name, tuple(patterns))


@lru_cache(maxsize=4096)
def _decided(name: str, patterns: tuple[str, ...]) -> str | None:
    allowed: str | None = None
    for pattern in patterns:
        if pattern.startswith("!"):
            if _fits(name, pattern[1:]):
                return None
        elif allowed is None and _fits(name, pattern):
            allowed = pattern
    return allowed


def _fits(name: str, pattern: str) -> bool:
    # `*` is the only wildcard: model names hold brackets and question marks of
    # their own. Pieces are found from left to right, so no pattern can be made
    # to backtrack, as a regular expression of many stars can.
    pieces = pattern.split("*")
    if len(pieces) == 1:
        return name == pattern
    first, last = pieces[0], pieces[-1]
    if len(name) < len(first) + len(last):
        return False
    if not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in pieces[1:-1]:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
