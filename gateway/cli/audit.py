"""`penstock audit`: shows and verifies the audit log, in the ledger itself.

No gateway need be running: whoever may read the database can hold its log against a
head that they noted elsewhere.
"""

import getpass
import json
import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gateway.ledger import AuditRow, DoneBy, Verification

Answer = TypeVar("Answer")


@click.group("audit")
def command() -> None:
    """Show and verify the audit log."""


@command.command("list")
@click.option("--action", help="Only this, such as keys.revoke.")
@click.option("--subject", help="Only what was done to this, such as a key's id.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one row a line.")
def list_rows(action: str | None, subject: str | None, limit: int, *, as_json: bool) -> None:
    """List what was done, newest first."""

    async def read() -> "list[AuditRow]":
        from gateway.ledger import open_ledger

        async with open_ledger(_ledger_url()) as ledger:
            return await ledger.audit.rows(action=action, subject=subject, limit=limit)

    rows = _run(read())
    if as_json:
        from gateway.api.admin.audit import flat

        for row in rows:
            click.echo(json.dumps(flat(row), ensure_ascii=False))
        return
    if not rows:
        click.echo("nothing was done yet", err=True)
        return
    _print_table(rows)


@command.command("verify")
@click.option("--seq", type=click.IntRange(1), help="The number of a row that you noted.")
@click.option("--hash", "digest", help="The hash of that row.")
def verify(seq: int | None, digest: str | None) -> None:
    """Go through the whole chain. Exits with 1, and the first bad row, if it does not hold."""
    if (seq is None) != (digest is None):
        raise click.UsageError("--seq and --hash name a row together; give both")

    async def verified() -> "Verification":
        from gateway.ledger import AuditHead, open_ledger

        expected = None if seq is None or digest is None else AuditHead(seq, digest)
        async with open_ledger(_ledger_url()) as ledger:
            return await ledger.audit.verify(expected=expected)

    found = _run(verified())
    if found.bad_seq is not None:
        click.echo(f"row {found.bad_seq} does not hold: {found.reason}", err=True)
        raise SystemExit(1)
    if found.head is None:
        click.echo("the log is empty")
        return
    click.echo(
        f"all {found.rows} rows hold; the head is --seq {found.rows} --hash {found.head.hash}"
    )


def done_by_user() -> "DoneBy":
    """Whoever runs this command, as the audit log names them."""
    from gateway.ledger import DoneBy

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return DoneBy(principal=f"{user} (command line)", role="system")


def _ledger_url() -> str:
    from gateway.logs import configure_logs
    from gateway.settings import SettingsInvalid, read_settings

    try:
        settings = read_settings()
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from None
    configure_logs("error", settings.log_format)
    return settings.ledger_url


def _run(work: "Coroutine[Any, Any, Answer]") -> Answer:
    import asyncio

    from gateway.errors import Refusal
    from gateway.ledger import LedgerNotOpened

    try:
        return asyncio.run(work)
    except Refusal as error:
        raise click.ClickException(error.message) from error
    except LedgerNotOpened as error:
        raise click.ClickException(str(error)) from error


def _print_table(rows: "list[AuditRow]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("seq", "at", "action", "subject", "by", "team", "outcome", box=None)
    for row in rows:
        entry = row.entry
        # Text, since a name may hold what rich takes for markup.
        cells = (entry.action, entry.subject, entry.principal, entry.team, entry.outcome)
        table.add_row(str(row.seq), entry.at[:19], *(Text(cell) for cell in cells))
    Console().print(table)
