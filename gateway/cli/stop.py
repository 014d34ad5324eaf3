"""`penstock stop MODEL...`: takes models out of memory."""

import click

from gateway.cli.client import GatewayClient, client_options, default_url


@click.command("stop")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@client_options
def command(models: tuple[str, ...], url: str | None, key: str | None) -> None:
    """Take MODELs out of the memory of a running gateway; answers that run are finished."""
    with GatewayClient(url or default_url(), key) as client:
        for model in models:
            body = {"model": model, "prompt": "", "keep_alive": 0, "stream": False}
            client.post("/api/generate", body)
            click.echo(f"stopped {model}", err=True)
