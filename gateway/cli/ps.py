"""`penstock ps`: what is loaded and running."""

import json
from typing import Any

import click

from gateway.cli.client import GatewayClient, client_options, default_url


@click.command("ps")
@click.option("--all", "show_all", is_flag=True, help="Also models that are not loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON.")
@client_options
def command(*, show_all: bool, as_json: bool, url: str | None, key: str | None) -> None:
    """Show a running gateway's engines and the models that they have loaded."""
    with GatewayClient(url or default_url(), key) as client:
        state = client.get("/admin/models")
    if as_json:
        click.echo(json.dumps(state, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(_engines(state["engines"]))
    shown = [model for model in state["models"] if show_all or model["loaded"]]
    console.print(_models(shown) if shown else "\nno model is loaded; the first call loads one")


def _engines(engines: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table("engine", "kind", "state", "running", "waiting", "cache used", box=None)
    for engine in engines:
        used = engine["cache_used"]
        state = engine["detail"] or ("ready" if engine["ready"] else "not ready")
        table.add_row(
            engine["name"],
            engine["kind"],
            state,
            str(engine["running"]),
            str(engine["waiting"]),
            "-" if used is None else f"{used:.0%}",
        )
    return table


def _models(models: list[dict[str, Any]]) -> Any:
    from rich.filesize import decimal
    from rich.table import Table

    table = Table("model", "engine", "quantization", "memory", "context", "loaded", box=None)
    for model in models:
        memory = model["memory_bytes"]
        table.add_row(
            model["name"],
            model["engine"],
            model["quantization"] or "-",
            decimal(memory) if memory else "-",
            f"{model['context_tokens']:,}",
            "yes" if model["loaded"] else "no",
        )
    return table
