"""`penstock policy`: checks policy directories, explains what they do, reloads a gateway's.

`check` exits with 1 if the policy cannot be used, `explain` if the call would be
refused, `diff` and `reload` if the gateway cannot take it, so that all can stand in a
script. `show`, `diff`, `reload` and `explain` without a directory ask a running gateway, as
an admin.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.client import GatewayClient, client_options, default_url

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.keys import KeyRow
    from gateway.limits import Rules
    from gateway.policy import Policy
    from gateway.policy.explain_key import Line


@click.group("policy")
def command() -> None:
    """Check, explain and reload policies."""


@command.command("check")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
def check(directory: Path) -> None:
    """Print everything that is wrong with the policy in DIR.

    Exits with 1 if it cannot be used; a warning is only printed.
    """
    from gateway.policy.check import warnings_of

    policy = _read(directory)
    out = _console()
    for warning in warnings_of(
        policy, hooks_of=_hooks_of_plugins(), endpoint_names=_endpoint_names()
    ):
        out.print(f"warning: {warning}", markup=False, style="yellow")
    out.print(f"{directory} holds: {_counts(policy)}", markup=False, style="green")


@command.command("explain")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--team", help="Who would call: a table of teams.toml. A key's own if --key-id is given."
)
@click.option("--endpoint", required=True, help="What they would call, such as openai.chat.")
@click.option("--model", help="The model name in the call, if it has one.")
@click.option("--key-id", metavar="ID", help="The key they would call with, by its public id.")
@client_options
@click.pass_context
def explain(
    context: click.Context, directory: Path | None, url: str | None, key: str | None, **asked: Any
) -> None:
    """Say what would happen to a call, and which line decided it.

    By the policy in DIR, with keys as the ledger has them; without DIR by a running
    gateway, which says how full the call's limits are, too. Exits with 1 if the policy
    would refuse the call.
    """
    _warn_about_endpoint(asked["endpoint"], _endpoint_names())
    rules = None
    if directory is None:
        lines = _asked_of_gateway(url or default_url(), key, asked)
    else:
        _refuse_client_options(context)
        lines, rules = _told_by(_read(directory), **asked)
    _print_aligned(lines)
    if lines[-1].refused:
        raise SystemExit(1)
    if rules:
        _print_fills(rules)


def _refuse_client_options(context: click.Context) -> None:
    for option in ("url", "key"):
        if context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{option} is for asking a running gateway, without DIR; "
                "a key's public id is said with --key-id"
            )


def _asked_of_gateway(url: str, key: str | None, asked: Mapping[str, Any]) -> Sequence["Line"]:
    from gateway.policy.explain_key import Line

    query = {"key" if name == "key_id" else name: value for name, value in asked.items()}
    with GatewayClient(url, key) as client:
        return [Line(**line) for line in client.get("/admin/policy/explain", query)["lines"]]


def _told_by(
    policy: "Policy", *, team: str | None, endpoint: str, model: str | None, key_id: str | None
) -> tuple[Sequence["Line"], "Rules"]:
    """What the policy says, and what would limit the call."""
    from gateway.limits import rules_to_look_at
    from gateway.policy.explain import explain as told

    key = _key_row(key_id, team) if key_id is not None else None
    team = team or (key.team if key is not None else None)
    if team is None:
        raise click.UsageError("say who would call: --team, or --key-id for one of its keys")
    lines = told(policy, team=team, endpoint=endpoint, model=model, key=key)
    rules = rules_to_look_at(policy, team=team, endpoint=endpoint, model=model, key=key)
    return lines, rules


def _key_row(key_id: str, team: str | None) -> "KeyRow":
    """The key as the ledger has it now. It must be one of the team's, if one was named."""
    import asyncio
    from datetime import UTC, datetime

    from gateway.cli.key_look_up import listed, only_one
    from gateway.keys import row_of
    from gateway.ledger import LedgerNotOpened
    from gateway.settings import read_settings

    try:
        keys = asyncio.run(listed(read_settings(), None))
    except LedgerNotOpened as error:
        raise click.ClickException(str(error)) from None
    key = only_one(key_id, keys)
    if team not in (None, key.team):
        raise click.UsageError(f"key {key.id} is of team {key.team!r}, not of {team!r}")
    return row_of(key, datetime.now(UTC))


def _print_fills(rules: "Rules") -> None:
    """How full the shared store says that these are; where there is none, who knows it."""
    import asyncio

    from gateway.limits import look
    from gateway.settings import read_settings
    from gateway.store import RedisStore, StoreNotOpened, StoreUnavailable, open_store

    async def looked(store: RedisStore) -> Sequence["Line"]:
        async with store.visited():
            return await look(store, rules)

    try:
        store = open_store(read_settings().store)
        if isinstance(store, RedisStore):
            _print_aligned(asyncio.run(looked(store)))
        else:
            click.echo("how full the limits are, a running gateway says: leave DIR out", err=True)
    except StoreNotOpened as error:
        raise click.ClickException(str(error)) from None
    except StoreUnavailable:
        raise click.ClickException("the store of PENSTOCK_STORE does not answer") from None


@command.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
@client_options
def show(*, as_json: bool, url: str | None, key: str | None) -> None:
    """Say which policy a running gateway serves, and how its last reload went."""
    with GatewayClient(url or default_url(), key) as client:
        shown = client.get("/admin/policy")
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    click.echo(f"{shown['directory']}  {shown['digest'][:12]}")
    last = shown["last_reload"]
    for problem in last["problems"] if last else ():
        click.echo(f"the last reload, by {last['by']}, was refused: {problem}")


@command.command("diff")
@client_options
def diff(url: str | None, key: str | None) -> None:
    """Say what a reload would change in a running gateway. Exits with 1 if it cannot be."""
    with GatewayClient(url or default_url(), key) as client:
        found = client.post("/admin/policy/check")
    for problem in found["problems"]:
        click.echo(problem, err=True)
    if not found["holds"]:
        raise SystemExit(1)
    _print_changes(found["changes"], "a reload would change nothing")


@command.command("reload")
@client_options
def reload(url: str | None, key: str | None) -> None:
    """Let a running gateway serve its policy directory as it is now. Exits with 1 if refused."""
    with GatewayClient(url or default_url(), key) as client:
        done = client.post("/admin/policy/reload")
    _print_changes(done["changes"], "nothing changed")
    for note in done["notes"]:
        click.echo(note, err=True)
    click.echo(f"serving {done['digest'][:12]}", err=True)


def _print_changes(changes: Sequence[str], nothing: str) -> None:
    for line in changes:
        click.echo(line)
    if not changes:
        click.echo(nothing, err=True)


def _read(directory: Path) -> "Policy":
    """The policy, or every problem on standard error and exit status 1."""
    from gateway.hooks import PluginInvalid, read_policy
    from gateway.policy import PolicyInvalid

    try:
        return read_policy(directory)
    except PluginInvalid as error:
        raise click.ClickException(str(error)) from None
    except PolicyInvalid as error:
        err = _console(stderr=True)
        for problem in error.problems:
            err.print(problem, markup=False, style="red")
        count = len(error.problems)
        noun = "problem" if count == 1 else "problems"
        err.print(f"{count} {noun} in {directory}; docs/policy.md has every field", markup=False)
        raise SystemExit(1) from None


def _hooks_of_plugins() -> dict[str, frozenset[str]]:
    from gateway.hooks import hooks_of, installed_plugins

    return {name: hooks_of(plugin) for name, plugin in installed_plugins().items()}


def _endpoint_names() -> Collection[str]:
    """The endpoints that a team can be allowed; public ones are everyone's."""
    from gateway.api import HANDLERS

    return frozenset(
        handler.opt.get("endpoint") or handler.name
        for handler in HANDLERS
        if handler.name and not handler.opt.get("public")
    )


def _warn_about_endpoint(endpoint: str, known: Collection[str]) -> None:
    from gateway.policy.problems import quoted, way_out

    if endpoint not in known:
        message = f"warning: {quoted(endpoint)} is not an endpoint of Penstock itself"
        err = _console(stderr=True)
        err.print(message + way_out(endpoint, known), markup=False, style="yellow")


def _counts(policy: "Policy") -> str:
    parts = {
        "plugin": policy.plugins,
        "engine": policy.engines,
        "model": policy.models,
        "team": policy.teams,
        "set of limits": policy.limits,
    }
    return ", ".join(_counted(len(things), noun) for noun, things in parts.items())


def _counted(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} sets of limits" if noun == "set of limits" else f"{count} {noun}s"


def _print_aligned(lines: Sequence["Line"]) -> None:
    """Two columns; a text that is much longer than the rest pushes only its own place."""
    from rich.text import Text

    out = _console()
    width = min(72, max(len(line.text) for line in lines))
    for line in lines:
        text = Text(line.text.ljust(width), style="red" if line.refused else "")
        out.print(text.append("  ").append(line.where, style="dim"))


def _console(*, stderr: bool = False) -> "Console":
    from rich.console import Console

    # Messages hold [tables] and long lines: no markup, and no wrapping by us.
    return Console(stderr=stderr, highlight=False, markup=False, soft_wrap=True)
