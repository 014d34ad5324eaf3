"""`penstock cp SOURCE TARGET`: gives a model another name."""

from pathlib import Path

import click

from gateway.cli.embedded import library_options, opened_client


@click.command("cp")
@click.argument("source")
@click.argument("target")
@library_options
def command(
    source: str, target: str, url: str | None, key: str | None, policy: Path | None
) -> None:
    """Give the model SOURCE another name, TARGET. No file is copied."""
    with opened_client(url, key, policy) as client:
        client.post("/api/copy", {"source": source, "destination": target})
    click.echo(f"copied {source} to {target}", err=True)
