"""`penstock usage`: what was used, summed up, from a running gateway."""

import json
from typing import Any

import click

from gateway.cli.client import GatewayClient, client_options, default_url

COUNTED = ("calls", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")
OF_A_CALL = ("call_id", "team", "model", "outcome", "prompt_tokens", "completion_tokens")
MICRO = 1_000_000


@click.command("usage")
@click.option("--by", default="team", show_default=True, metavar="NAMES",
              help="day, team, key, principal, model, engine, endpoint, outcome, with commas "
                   "between; or call, for one row each.")  # fmt: skip
@click.option("--from", "since", metavar="DAY", help="First day or moment, such as 2026-03-01.")
@click.option("--to", "until", metavar="DAY", help="Last day, or the moment to stop at.")
@click.option("--team", help="Only this team.")
@click.option("--key-id", help="Only the API key with this public id.")
@click.option("--model", help="Only this model.")
@click.option("--limit", type=click.IntRange(1, 10_000), help="At most so many rows.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON.")
@client_options
def command(url: str | None, key: str | None, **asked: Any) -> None:
    """Sum up what was used. Wants a key with the role admin where the gateway wants keys."""
    query = {
        "by": asked["by"],
        "from": asked["since"],
        "to": asked["until"],
        "team": asked["team"],
        "key": asked["key_id"],
        "model": asked["model"],
        "limit": asked["limit"],
    }
    with GatewayClient(url or default_url(), key) as client:
        if asked["as_csv"]:
            click.echo(client.get_text("/admin/usage", {**query, "format": "csv"}), nl=False)
            return
        found = client.get("/admin/usage", query)
    if asked["as_json"]:
        click.echo(json.dumps(found, indent=2))
        return
    _print_table(found)


def _print_table(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows: list[dict[str, Any]] = found["rows"]
    if not rows:
        click.echo("nothing was used; is the plugin `usage` in gateway.toml?", err=True)
        return
    costs = any(row["cost_micros"] is not None for row in rows)
    shown: list[str] = list(OF_A_CALL)
    if "call_id" not in rows[0]:
        hidden = ("cost_micros", "reasoning_tokens", *COUNTED)
        shown = [*(name for name in rows[0] if name not in hidden), *COUNTED]
    table = Table(box=None)
    for name in [*shown, *(["cost"] if costs else [])]:
        right = name in COUNTED or name == "cost"
        heading = name.removesuffix("_tokens").replace("_", " ")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        # Text, since a name may hold what rich takes for markup.
        cells = [Text(_cell(row[name])) for name in shown]
        table.add_row(*cells, *([Text(_cost(row["cost_micros"]))] if costs else []))
    Console().print(table)
    if found["next_offset"] is not None:
        click.echo("there are more; see --limit, or narrow it", err=True)
    if found["recording"]["is_behind"]:
        click.echo("the gateway cannot reach its ledger: what it spooled is missing here", err=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _cost(micros: int | None) -> str:
    return "-" if micros is None else f"{micros / MICRO:,.4f}"
