"""`penstock keys`: makes, lists and revokes API keys, in the ledger itself.

No gateway need be running, and one that is notices within five seconds.
"""

import re
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gateway.keys import ApiKey, Keys, NewKey
    from gateway.ledger import Ledger
    from gateway.settings import Settings

Answer = TypeVar("Answer")

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]{1,6})([mhdw])")


def _duration(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> timedelta | None:
    """The length of time that `--expires` names."""
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a length of time such as 12h, 30d or 8w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.group("keys")
def command() -> None:
    """Create, list and revoke API keys."""


@command.command("create")
@click.option("--team", required=True, help="The team of teams.toml that the key acts for.")
@click.option("--name", required=True, help="What it is for, such as laptop or nightly-batch.")
@click.option(
    "--expires", callback=_duration, metavar="TIME", help="How long it works: 12h, 30d, 8w."
)
@click.option("--force", is_flag=True, help="Also for a team that the policy does not have.")
def create(team: str, name: str, expires: timedelta | None, *, force: bool) -> None:
    """Make a key and print it, once.

    The key alone goes to standard output: KEY=$(penstock keys create …) works.
    """
    settings = _settings()
    if not force:
        _check_team(team, settings)

    async def created() -> "NewKey":
        from gateway.cli.audit import done_by_user
        from gateway.ledger import new_entry

        async with _keys(settings) as (keys, ledger), ledger.audited() as record:
            new = await keys.create(team, name, expires)
            row = _row(new.key, datetime.now(UTC))
            await record(new_entry(done_by_user(), "keys.create", new.key.id, after=row))
            return new

    new = _run(created())
    click.echo(
        f"key {new.key.id} for team {team}, expires {_day(new.key.expires_at)}. "
        "This is the only time it is shown:",
        err=True,
    )
    click.echo(new.secret)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(*, as_json: bool) -> None:
    """List every key, revoked and expired ones too; never a secret."""
    keys = _run(_listed(_settings()))
    now = datetime.now(UTC)
    if as_json:
        import msgspec

        rows = [_row(key, now) for key in keys]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    if not keys:
        click.echo("no keys; `penstock keys create --team me --name laptop` makes one", err=True)
        return
    _print_table(keys, now)


@command.command("revoke")
@click.argument("id")
def revoke(id: str) -> None:
    """End a key for good. ID is its public id, or the start of one."""

    async def revoked() -> "tuple[ApiKey, ApiKey]":
        from gateway.cli.audit import done_by_user
        from gateway.ledger import new_entry

        async with _keys(_settings()) as (keys, ledger), ledger.audited() as record:
            key = _only_one(id, await keys.list())
            after = await keys.revoke(key.id) or key
            if key.revoked_at is None:
                now = datetime.now(UTC)
                before, then = _row(key, now), _row(after, now)
                entry = new_entry(done_by_user(), "keys.revoke", key.id, before=before, after=then)
                await record(entry)
            return key, after

    before, after = _run(revoked())
    which = f"key {after.id} ({after.name}, team {after.team})"
    if before.revoked_at is not None:
        click.echo(f"{which} was revoked already, on {_day(before.revoked_at)}")
        return
    click.echo(f"{which} is revoked; a running gateway refuses it within 5 seconds")


def _settings() -> "Settings":
    from gateway.logs import configure_logs
    from gateway.settings import SettingsInvalid, read_settings

    try:
        settings = read_settings()
    except SettingsInvalid as error:
        raise click.ClickException(str(error)) from None
    configure_logs("error", settings.log_format)
    return settings


@asynccontextmanager
async def _keys(settings: "Settings") -> "AsyncGenerator[tuple[Keys, Ledger], None]":
    from gateway.keys import Keys, open_pepper
    from gateway.ledger import open_ledger

    async with (
        open_ledger(settings.ledger_url) as ledger,
        Keys(ledger, pepper=open_pepper(settings)) as keys,
    ):
        yield keys, ledger


async def _listed(settings: "Settings") -> "Sequence[ApiKey]":
    from gateway.ledger import open_ledger

    async with open_ledger(settings.ledger_url) as ledger:
        return await ledger.keys()


def _run(work: "Coroutine[Any, Any, Answer]") -> Answer:
    """Run to the end; what a person can mend becomes a message instead of a traceback."""
    import asyncio

    from gateway.errors import Refusal
    from gateway.keys import PepperInvalid
    from gateway.ledger import LedgerNotOpened

    try:
        return asyncio.run(work)
    except Refusal as error:
        raise click.ClickException(error.message) from error
    except (LedgerNotOpened, PepperInvalid) as error:
        raise click.ClickException(str(error)) from error


def _check_team(team: str, settings: "Settings") -> None:
    from gateway.hooks import PluginInvalid, read_policy
    from gateway.policy.problems import PolicyInvalid

    try:
        policy = read_policy(settings.policy)
    except (PolicyInvalid, PluginInvalid, OSError) as error:
        click.echo(
            f"the policy {settings.policy} does not load, so team {team!r} is not checked: "
            f"{str(error).splitlines()[0]} (PENSTOCK_POLICY names another)",
            err=True,
        )
        return
    if team not in policy.teams:
        teams = ", ".join(sorted(policy.teams)) or "none"
        raise click.ClickException(
            f"{settings.policy} has no team {team!r} (there are: {teams}), so the key could do "
            "nothing; PENSTOCK_POLICY names another policy, --force makes the key all the same"
        )


def _only_one(given: str, keys: "Sequence[ApiKey]") -> "ApiKey":
    from gateway.keys import id_in

    key_id = id_in(given)
    fitting = [key for key in keys if key.id == key_id]
    fitting = fitting or [key for key in keys if key_id and key.id.startswith(key_id)]
    if not fitting:
        raise click.ClickException(
            f"there is no key {key_id!r}; `penstock keys list` shows the keys that there are"
        )
    if len(fitting) > 1:
        ids = ", ".join(key.id for key in fitting[:10])
        raise click.ClickException(f"{key_id!r} is the start of {len(fitting)} keys: {ids}")
    return fitting[0]


def _print_table(keys: "Sequence[ApiKey]", now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    table.add_column("id", no_wrap=True)
    for column in ("team", "name", "created", "last used", "expires", "state"):
        table.add_column(column, overflow="fold")
    for key in keys:
        # Text, since a name may hold what rich takes for markup.
        table.add_row(
            Text(key.id, style="bold"),
            Text(key.team),
            Text(key.name),
            _day(key.created_at),
            _day(key.last_used_at),
            _day(key.expires_at),
            Text(_state(key, now), style="green" if key.is_usable(now) else "dim"),
        )
    Console().print(table)


def _row(key: "ApiKey", now: datetime) -> dict[str, Any]:
    return {
        "id": key.id,
        "team": key.team,
        "name": key.name,
        "state": _state(key, now),
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _state(key: "ApiKey", now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "active" if key.is_usable(now) else "expired"


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")
