"""`penstock rm MODEL...`: removes models."""

from pathlib import Path

import click

from gateway.cli.embedded import library_options, opened_client


@click.command("rm")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@library_options
def command(models: tuple[str, ...], url: str | None, key: str | None, policy: Path | None) -> None:
    """Remove MODELs; a file goes when no other model has it. Answers that run are finished."""
    failed = False
    with opened_client(url, key, policy) as client:
        for model in models:
            try:
                client.delete("/api/delete", {"model": model})
            except click.ClickException as error:
                # The others are to go all the same.
                click.echo(f"Error: {error.message}", err=True)
                failed = True
            else:
                click.echo(f"removed {model}", err=True)
    if failed:
        raise click.exceptions.Exit(1)
