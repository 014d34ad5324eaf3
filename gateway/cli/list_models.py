"""`penstock list`: the models that you may use."""

import json

import click

from gateway.cli.client import GatewayClient, client_options, default_url


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON.")
@client_options
def command(*, as_json: bool, url: str | None, key: str | None) -> None:
    """List the models that you may use on a running gateway."""
    with GatewayClient(url or default_url(), key) as client:
        models = client.get("/v1/models")["data"]
    if as_json:
        click.echo(json.dumps(models, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "engine kind", "context", box=None)
    for model in models:
        context = model.get("context_length")
        table.add_row(model["id"], model.get("kind") or "-", f"{context:,}" if context else "-")
    Console().print(table if models else "no models; look at models and teams of the policy")
