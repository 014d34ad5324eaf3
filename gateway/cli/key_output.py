"""How `penstock keys` shows keys: never a secret, always what they may do."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.keys import ApiKey

_STYLES = {"active": "green", "disabled": "yellow"}


def print_table(keys: "Sequence[ApiKey]", now: datetime) -> None:
    """One row for each key, and below it a line for each that has more to be said."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    table.add_column("id", no_wrap=True)
    for column in ("team", "name", "created", "last used", "expires", "state"):
        table.add_column(column, overflow="fold")
    for key in keys:
        state = key.state(now)
        # Text, since a name may hold what rich takes for markup.
        table.add_row(
            Text(key.id, style="bold"),
            Text(key.team),
            Text(key.name),
            day(key.created_at),
            day(key.last_used_at),
            day(key.expires_at),
            Text(state, style=_STYLES.get(state, "dim")),
        )
    out = Console()
    out.print(table)
    for key in keys:
        if said := "; ".join(_said(key, now)):
            out.print(Text(f" {key.id}: {said}"), soft_wrap=True)


def narrowed(key: "ApiKey") -> str:
    """What the key may do less than its team: `models chat-*; networks 10.0.0.0/8`."""
    return "; ".join(_narrowed(key))


def day(moment: datetime | None) -> str:
    """A moment on this machine's clock."""
    return "never" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _narrowed(key: "ApiKey") -> Iterator[str]:
    for field in ("models", "endpoints", "networks"):
        patterns: tuple[str, ...] | None = getattr(key, field)
        if patterns is not None:
            yield f"{field} {' '.join(patterns)}"
    if key.limits is not None:
        yield f"limits {key.limits}"


def _said(key: "ApiKey", now: datetime) -> Iterator[str]:
    if key.role != "member":
        yield f"role {key.role}"
    if only := narrowed(key):
        yield f"only {only}"
    if key.previous_is_usable(now):
        used = "never" if key.previous_used_at is None else day(key.previous_used_at)
        yield f"the secret before works until {day(key.previous_expires_at)} (last used {used})"
