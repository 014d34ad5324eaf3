"""What a key may do less than its team. It can only take away."""

from collections.abc import Sequence

from msgspec import Struct


class Narrowing(Struct, frozen=True, kw_only=True):
    """Each field is a list as in teams.toml; None leaves what the team has."""

    models: Sequence[str] | None = None
    endpoints: Sequence[str] | None = None
    networks: Sequence[str] | None = None
    limits: str | None = None  # a table of limits.toml, on top of the team's own

    @property
    def is_none(self) -> bool:
        """Does it take nothing away?"""
        return self == NOT_NARROWED


NOT_NARROWED = Narrowing()
