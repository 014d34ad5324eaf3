"""`penstock list`: the models that you may use."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.embedded import library_options, opened_client
from gateway.cli.quantities import bytes_text, since_text
from gateway.cli.tables import print_table


@click.command("list")
@click.argument("beginning", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON.")
@library_options
def command(
    beginning: str, *, as_json: bool, url: str | None, key: str | None, policy: Path | None
) -> None:
    """List the models that you may use, or those whose names have this BEGINNING."""
    with opened_client(url, key, policy) as client:
        found: list[dict[str, Any]] = client.get("/api/tags")["models"]
    models = [one for one in found if one["name"].lower().startswith(beginning.lower())]
    if as_json:
        click.echo(json.dumps(models, indent=2))
    elif models:
        print_models(models)
    else:
        click.echo(
            "no model's name begins so" if beginning else "no models: try `penstock pull`", err=True
        )


def print_models(models: list[dict[str, Any]]) -> None:
    """A table of `/api/tags`."""
    now = datetime.now(UTC)
    rows = [
        [
            model["name"],
            short_digest(model.get("digest")),
            bytes_text(model["size"]) if model.get("size") else "-",
            since_text(model.get("modified_at"), now),
        ]
        for model in models
    ]
    print_table(["name", "id", "size", "modified"], rows)


def short_digest(digest: str | None) -> str:
    """The beginning of a digest, which is enough to tell two apart."""
    return (digest or "").removeprefix("sha256:")[:12] or "-"
