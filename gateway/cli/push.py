"""`penstock push MODEL`: sends a model to the registry that its name begins with."""

from pathlib import Path

import click

from gateway.cli.embedded import library_options, opened_client
from gateway.cli.interrupted import ending_with
from gateway.cli.pull import follow


@click.command("push")
@click.argument("model")
@click.option(
    "--insecure", is_flag=True, help="Talk to the registry over http, where the gateway does that."
)
@click.option("--json", "as_json", is_flag=True, help="Print each step as a line of JSON.")
@library_options
def command(
    model: str,
    *,
    insecure: bool,
    as_json: bool,
    url: str | None,
    key: str | None,
    policy: Path | None,
) -> None:
    """Send MODEL to the registry that its name begins with: `registry.example.com/team/model`.

    Give it that name first: `penstock cp my-model registry.example.com/team/my-model`.
    """
    rest = f"stopped; `penstock push {model}` sends what is not there yet"
    with opened_client(url, key, policy) as client, ending_with(rest):
        follow(client, "/api/push", {"model": model, "insecure": insecure}, as_json=as_json)
