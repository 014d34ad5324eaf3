"""`penstock keys`: makes, changes, lists and revokes API keys, in the ledger itself.

No gateway need be running, and one that is notices within a second.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gateway.cli.key_look_up import listed, only_one
from gateway.cli.key_output import day, narrowed, print_table
from gateway.narrowing import NOT_NARROWED, Narrowing

if TYPE_CHECKING:
    from gateway.call import Role
    from gateway.keys import ApiKey, KeyChange, Keys, NewKey
    from gateway.ledger import Ledger
    from gateway.settings import Settings

Answer = TypeVar("Answer")
Action = Callable[["Keys", str], Awaitable["KeyChange | None"]]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]{1,6})([mhdw])")


def _duration(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> timedelta | None:
    """The length of time that an option names; `0` is none, `never` is no end."""
    if value is None or value == "never":
        return None
    if value == "0":
        return timedelta(0)
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a length of time such as 12h, 30d or 8w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _narrowing_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that make a key less than its team, as one argument `narrowing`."""

    @click.option("--model", "models", multiple=True, metavar="GLOB", help="Only these models.")
    @click.option("--endpoint", "endpoints", multiple=True, metavar="GLOB", help="Only these.")
    @click.option("--network", "networks", multiple=True, metavar="CIDR", help="Only from here.")
    @click.option("--limits", help="A table of limits.toml, on top of the team's own.")
    @wraps(function)
    def with_narrowing(*, limits: str | None, **options: Any) -> Any:
        lists = {name: options.pop(name) or None for name in ("models", "endpoints", "networks")}
        return function(narrowing=Narrowing(**lists, limits=limits), **options)

    return with_narrowing


@click.group("keys")
def command() -> None:
    """Create, change, rotate, list and revoke API keys."""


@command.command("create")
@click.option("--team", required=True, help="The team of teams.toml that the key acts for.")
@click.option("--name", required=True, help="What it is for, such as laptop or nightly-batch.")
@click.option(
    "--expires", callback=_duration, metavar="TIME", help="How long it works: 12h, 30d, 8w."
)
@click.option(
    "--role", type=click.Choice(["member", "admin"]), default="member", show_default=True,
    help="admin: also for the admin endpoints that the team may use.",
)  # fmt: skip
@_narrowing_options
@click.option("--force", is_flag=True, help="Also for what the policy does not have.")
def create(
    team: str,
    name: str,
    expires: timedelta | None,
    role: "Role",
    narrowing: Narrowing,
    *,
    force: bool,
) -> None:
    """Make a key and print it, once.

    The key alone goes to standard output: KEY=$(penstock keys create …) works. A list
    may be given by repeating its option; `!GLOB` denies, and wins.
    """
    settings = _settings()
    if not force:
        _check_policy_has(settings, team=team, limits=narrowing.limits)

    async def created() -> "NewKey":
        from gateway.cli.audit import done_by_user
        from gateway.keys import row_of
        from gateway.ledger import new_entry

        async with _keys(settings) as (keys, ledger), ledger.audited() as record:
            new = await keys.create(team, name, expires, role=role, narrowing=narrowing)
            after = row_of(new.key, datetime.now(UTC))
            await record(new_entry(done_by_user(), "keys.create", new.key.id, after=after))
            return new

    new = _run(created())
    only = f", only {narrowed(new.key)}" if narrowing != NOT_NARROWED else ""
    as_admin = ", with the role admin" if role == "admin" else ""
    click.echo(
        f"key {new.key.id} for team {team}{as_admin}{only}, expires {day(new.key.expires_at)}. "
        "This is the only time it is shown:",
        err=True,
    )
    click.echo(new.secret)


@command.command("list")
@click.option("--team", help="Only this team's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(team: str | None, *, as_json: bool) -> None:
    """List every key, revoked and expired ones too; never a secret."""
    keys = _run(listed(_settings(), team))
    now = datetime.now(UTC)
    if as_json:
        import msgspec

        from gateway.keys import row_of

        rows = [row_of(key, now) for key in keys]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
        return
    if not keys:
        click.echo("no keys; `penstock keys create --team me --name laptop` makes one", err=True)
        return
    print_table(keys, now)


@command.command("rotate")
@click.argument("id")
@click.option(
    "--grace", default="24h", callback=_duration, metavar="TIME", show_default=True,
    help="How long the secret before works on; 0: every earlier one ends at once.",
)  # fmt: skip
def rotate(id: str, grace: timedelta | None) -> None:
    """Give a key a new secret and print it, once; id, team and rights stay."""
    if grace is None:
        raise click.BadParameter("a grace ends some time: 12h, 30d, 8w, or 0 for none")

    async def rotated() -> "NewKey":
        from gateway.cli.audit import done_by_user
        from gateway.keys import row_of
        from gateway.ledger import new_entry

        async with _keys(_settings()) as (keys, ledger), ledger.audited() as record:
            found = await keys.rotate(only_one(id, await keys.list()).id, grace)
            assert found is not None, "keys are never deleted"
            new, change = found
            now = datetime.now(UTC)
            before, after = row_of(change.before, now), row_of(change.after, now)
            await record(
                new_entry(done_by_user(), "keys.rotate", new.key.id, before=before, after=after)
            )
            return new

    new = _run(rotated())
    until = new.key.previous_expires_at
    before = "the one before has ended" if until is None else f"the one before ends {day(until)}"
    click.echo(
        f"key {new.key.id} ({new.key.name}, team {new.key.team}) has a new secret; {before}. "
        "This is the only time it is shown:",
        err=True,
    )
    click.echo(new.secret)


@command.command("disable")
@click.argument("id")
def disable(id: str) -> None:
    """Stop a key until `penstock keys enable`."""
    _change(id, "disable", lambda keys, key_id: keys.disable(key_id), "is disabled")


@command.command("enable")
@click.argument("id")
def enable(id: str) -> None:
    """Let a disabled key work again."""
    _change(id, "enable", lambda keys, key_id: keys.enable(key_id), "is enabled")


@command.command("expire")
@click.argument("id")
@click.argument("time", callback=_duration)
def expire(id: str, time: timedelta | None) -> None:
    """Let a key end after TIME from now (12h, 30d, 8w), or `never`."""
    when = "never ends" if time is None else f"ends {day(datetime.now(UTC) + time)}"
    _change(id, "expire", lambda keys, key_id: keys.expire(key_id, time), when)


@command.command("narrow")
@click.argument("id")
@_narrowing_options
@click.option("--not-at-all", is_flag=True, help="Take away what narrowed it before.")
def narrow(id: str, narrowing: Narrowing, *, not_at_all: bool) -> None:
    """Replace what a key may do less than its team."""
    if not_at_all == (narrowing != NOT_NARROWED):
        raise click.UsageError("say what the key is narrowed to, or --not-at-all")
    settings = _settings()
    _check_policy_has(settings, team=None, limits=narrowing.limits)
    what = "may do all that its team may" if not_at_all else "is narrowed"
    _change(id, "narrow", lambda keys, key_id: keys.narrow(key_id, narrowing), what)


@command.command("revoke")
@click.argument("id")
def revoke(id: str) -> None:
    """End a key for good. ID is its public id, or the start of one."""
    change = _changed(id, "revoke", lambda keys, key_id: keys.revoke(key_id))
    if change.before.revoked_at is not None:
        which = _which(change.after)
        click.echo(f"{which} was revoked already, on {day(change.before.revoked_at)}")
        return
    click.echo(f"{_which(change.after)} is revoked; a running gateway refuses it within a second")


def _change(id: str, verb: str, action: Action, what: str) -> None:
    """Change a key and say so."""
    change = _changed(id, verb, action)
    click.echo(f"{_which(change.after)} {what}; a running gateway knows it within a second")


def _changed(id: str, verb: str, action: Action) -> "KeyChange":
    """Do it, and record it in the audit log unless nothing changed."""

    async def changed() -> "KeyChange":
        from gateway.cli.audit import done_by_user
        from gateway.keys import row_of
        from gateway.ledger import new_entry

        async with _keys(_settings()) as (keys, ledger), ledger.audited() as record:
            change = await action(keys, only_one(id, await keys.list()).id)
            assert change is not None, "keys are never deleted"
            now = datetime.now(UTC)
            before, after = row_of(change.before, now), row_of(change.after, now)
            if change.before != change.after:
                entry = new_entry(
                    done_by_user(), f"keys.{verb}", change.after.id, before=before, after=after
                )
                await record(entry)
            return change

    return _run(changed())


def _which(key: "ApiKey") -> str:
    return f"key {key.id} ({key.name}, team {key.team})"


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
    from gateway.keys import Keys, open_invalidations, open_pepper
    from gateway.ledger import open_ledger

    async with open_ledger(settings.ledger_url) as ledger:
        # Not entered: what others announce is nothing to a command that ends at once.
        keys = Keys(
            ledger,
            pepper=open_pepper(settings),
            invalidations=open_invalidations(settings.store),
        )
        try:
            yield keys, ledger
        finally:
            await keys.close()


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


def _check_policy_has(settings: "Settings", *, team: str | None, limits: str | None) -> None:
    """Refuse names that the policy does not have; one that cannot be read is only said."""
    from gateway.hooks import PluginInvalid, read_policy
    from gateway.policy.problems import PolicyInvalid

    wanted = " and ".join(
        f"{noun} {name!r}" for noun, name in (("team", team), ("limits", limits)) if name
    )
    if not wanted:
        return
    try:
        policy = read_policy(settings.policy)
    except (PolicyInvalid, PluginInvalid, OSError) as error:
        is_checked = "is not checked" if " and " not in wanted else "are not checked"
        click.echo(
            f"the policy {settings.policy} does not load, so {wanted} {is_checked}: "
            f"{str(error).splitlines()[0]} (PENSTOCK_POLICY names another)",
            err=True,
        )
        return
    for noun, name, there in (("team", team, policy.teams), ("limits", limits, policy.limits)):
        if name and name not in there:
            names = ", ".join(sorted(there)) or "none"
            raise click.ClickException(
                f"{settings.policy} has no {noun} {name!r} (there are: {names}), so the key could "
                "do nothing; PENSTOCK_POLICY names another policy, --force makes the key all the "
                "same"
            )
