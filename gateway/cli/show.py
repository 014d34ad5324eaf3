"""`penstock show MODEL`: what a model is made of."""

import json
from pathlib import Path
from typing import Any

import click

from gateway.cli.embedded import library_options, opened_client
from gateway.cli.model_card import PARTS, part_of, print_card


@click.command("show")
@click.argument("model")
@click.option("--license", "part", flag_value="license", help="Its licences.")
@click.option("--modelfile", "part", flag_value="modelfile", help="A Modelfile that makes it.")
@click.option("--parameters", "part", flag_value="parameters", help="Its parameters.")
@click.option("--system", "part", flag_value="system", help="Its system message.")
@click.option("--template", "part", flag_value="template", help="Its prompt template.")
@click.option("--verbose", "-v", is_flag=True, help="All that its file says of itself.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON.")
@library_options
def command(  # noqa: PLR0913 - one parameter for each option
    model: str,
    part: str | None,
    *,
    verbose: bool,
    as_json: bool,
    url: str | None,
    key: str | None,
    policy: Path | None,
) -> None:
    """Show what MODEL is: its size, what it can do, its parameters and its system message."""
    with opened_client(url, key, policy) as client:
        shown: dict[str, Any] = client.post("/api/show", {"model": model, "verbose": verbose})
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    elif part is None:
        print_card(shown, verbose=verbose)
    else:
        assert part in PARTS
        text = part_of(shown, part)
        if not text:
            raise click.ClickException(f"{model} has no {PARTS[part]}")
        click.echo(text)
