"""Which paths of an upstream may be called as their clients wrote them."""

import re
from collections.abc import Sequence

# Paths that the gateway has an endpoint of its own for.
KNOWN = frozenset({"chat/completions", "completions", "embeddings", "rerank"})
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


class PassedPaths:
    """The known paths, and those that `passthrough` lists. `*` stands for one part of a path."""

    def __init__(self, listed: Sequence[str]) -> None:
        self._listed = [_parsed(entry) for entry in listed]

    def allow(self, method: str, path: str) -> bool:
        """May this path be called with this method?"""
        if path in KNOWN:
            return method == "POST"
        parts = path.split("/")
        if not all(_SEGMENT.fullmatch(part) for part in parts):
            return False  # nothing that could climb out of the base URL, in any spelling
        return any(listed == method and _fits(parts, fit) for listed, fit in self._listed)

    def is_known(self, path: str) -> bool:
        """Is it one of those that the gateway has an endpoint for?"""
        return path in KNOWN


def _parsed(entry: str) -> tuple[str, Sequence[str]]:
    method, _, path = entry.rpartition(" ")
    return method or "POST", path.split("/")


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) == len(pattern) and all(
        wanted in ("*", part) for part, wanted in zip(parts, pattern, strict=True)
    )
