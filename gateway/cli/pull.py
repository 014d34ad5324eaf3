"""`penstock pull MODEL`: fetches a model, with what an earlier pull has left."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gateway.cli.client import GatewayClient
from gateway.cli.create import create_of_file
from gateway.cli.embedded import library_options, opened_client
from gateway.cli.interrupted import ending_with
from gateway.cli.progress import shown_progress


@click.command("pull")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--insecure", is_flag=True, help="Ask the registry over http.")
@click.option("--json", "as_json", is_flag=True, help="Print each step as a line of JSON.")
@library_options
def command(
    models: tuple[str, ...],
    *,
    insecure: bool,
    as_json: bool,
    url: str | None,
    key: str | None,
    policy: Path | None,
) -> None:
    """Fetch MODELs: `qwen3:0.6b`, `hf.co/ORG/REPO:Q4_K_M`, a registry's name, a URL or ./FILE.gguf.

    A pull that was stopped goes on where it was.
    """
    with opened_client(url, key, policy) as client:
        for model in models:
            if (path := _of_this_machine(model)) is not None:
                create_of_file(client, path, as_json=as_json)
            else:
                pull(client, model, insecure=insecure, as_json=as_json)


def _of_this_machine(text: str) -> Path | None:
    """The file that is meant, None for a name or a URL."""
    path = Path(text).expanduser()
    if text.startswith((".", "/", "~")):
        return path.absolute()
    is_file = "://" not in text and text.lower().endswith(".gguf") and path.is_file()
    return path.absolute() if is_file else None


def pull(
    client: GatewayClient, model: str, *, insecure: bool = False, as_json: bool = False
) -> None:
    """Pull one model and show how it goes."""
    kept = f"stopped; what was fetched is kept: `penstock pull {model}` goes on from there"
    with ending_with(kept):
        # Ollama wants the field, Penstock the scheme; either knows the other's way, too.
        name = f"http://{model}" if insecure and "://" not in model else model
        follow(client, "/api/pull", {"model": name, "insecure": insecure}, as_json=as_json)


def follow(
    client: GatewayClient, path: str, body: Mapping[str, Any], *, as_json: bool = False
) -> None:
    """Show the steps of a job, which has to end with "success"."""
    status = None
    with shown_progress(as_json=as_json) as show:
        for step in client.stream(path, {**body, "stream": True}):
            status = step.get("status")
            show(step)
    if status != "success":
        raise click.ClickException("it broke off before the end; type the same again to go on")
