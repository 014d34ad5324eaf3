"""What a key may do less than its team. It can only take away."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from gateway.networks import network_problem

MAX_PATTERNS = 64
MAX_PATTERN_CHARACTERS = 200


class Narrowing(Struct, frozen=True, kw_only=True):
    """Each field is a list as in teams.toml; None leaves what the team has."""

    models: Sequence[str] | None = None
    endpoints: Sequence[str] | None = None
    networks: Sequence[str] | None = None
    limits: str | None = None  # a table of limits.toml, on top of the team's own


NOT_NARROWED = Narrowing()


def narrowing_problems(narrowing: Narrowing) -> Iterator[tuple[str, str]]:
    """Each field that cannot be, and why."""
    for field in ("models", "endpoints", "networks"):
        patterns: Sequence[str] | None = getattr(narrowing, field)
        if patterns is not None and (problem := _problem_of(field, patterns)):
            yield field, problem
    limits = narrowing.limits
    if limits is not None and not _can_be_shown(limits):
        yield "limits", f"{limits[:40]!r} is not the name of a table of limits.toml"


def _problem_of(field: str, patterns: Sequence[str]) -> str:
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        return (
            f"a key's {field} are 1 to {MAX_PATTERNS} patterns, not {len(patterns)}; "
            "leave them out for all that the team has"
        )
    for pattern in patterns:
        if not _can_be_shown(pattern) or pattern == "!":
            return (
                f"{pattern[:40]!r} is not a pattern of 1 to {MAX_PATTERN_CHARACTERS} printable "
                "characters"
            )
        if field == "networks" and (problem := network_problem(pattern)):
            return f"{pattern!r} {problem}"
    if all(pattern.startswith("!") for pattern in patterns):
        return f"these {field} only deny, so nothing is allowed; add what is, such as '*'"
    return ""


def _can_be_shown(text: str) -> bool:
    return 0 < len(text) <= MAX_PATTERN_CHARACTERS and text.isprintable() and text == text.strip()
