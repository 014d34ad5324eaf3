"""`penstock ps`: what is loaded and running."""

import json
from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli.client import GatewayClient, client_options, default_url
from gateway.cli.list_models import short_digest
from gateway.cli.quantities import bytes_text, since_text
from gateway.cli.tables import print_table


@click.command("ps")
@click.option("--engines", is_flag=True, help="Engines too, and their queues; for admins.")
@click.option(
    "--all", "show_all", is_flag=True, help="Also models that are not loaded; for admins."
)
@click.option("--json", "as_json", is_flag=True, help="Print the server's JSON.")
@client_options
def command(
    *, engines: bool, show_all: bool, as_json: bool, url: str | None, key: str | None
) -> None:
    """Show the models that a running gateway has loaded, and what its engines do."""
    for_admins = engines or show_all
    with GatewayClient(url or default_url(), key) as client:
        state = client.get("/admin/models" if for_admins else "/api/ps")
    if as_json:
        click.echo(json.dumps(state if for_admins else state["models"], indent=2))
    elif for_admins:
        _print_engines(state, show_all=show_all)
    elif state["models"]:
        _print_loaded(state["models"])
    else:
        click.echo(_NOTHING, err=True)


_NOTHING = "no model is loaded; the first call loads one"


def _print_loaded(models: list[dict[str, Any]]) -> None:
    now = datetime.now(UTC)
    headings = ["name", "id", "size", "processor", "context", "until"]
    rows = [
        [
            model["name"],
            short_digest(model.get("digest")),
            bytes_text(model["size"]) if model.get("size") else "-",
            _processor(model.get("size") or 0, model.get("size_vram") or 0),
            str(model.get("context_length") or "-"),
            since_text(model.get("expires_at"), now),
        ]
        for model in models
    ]
    print_table(headings, rows)


def _processor(size: int, on_gpu: int) -> str:
    """Where the weights are: `100% CPU`, `40%/60% CPU/GPU`."""
    if not size:
        return "-"
    share = round(min(on_gpu / size, 1.0) * 100)
    if share in (0, 100):
        return "100% GPU" if share else "100% CPU"
    return f"{100 - share}%/{share}% CPU/GPU"


def _print_engines(state: dict[str, Any], *, show_all: bool) -> None:
    headings = ["engine", "kind", "state", "running", "waiting", "cache used"]
    rows = [
        [
            engine["name"],
            engine["kind"],
            engine["detail"] or ("ready" if engine["ready"] else "not ready"),
            str(engine["running"]),
            str(engine["waiting"]),
            "-" if engine["cache_used"] is None else f"{engine['cache_used']:.0%}",
        ]
        for engine in state["engines"]
    ]
    print_table(headings, rows)
    models = [model for model in state["models"] if show_all or model["loaded"]]
    click.echo()
    if not models:
        click.echo(_NOTHING, err=True)
        return
    headings = ["model", "engine", "quantization", "memory", "context", "loaded"]
    rows = [
        [
            model["name"],
            model["engine"],
            model["quantization"] or "-",
            bytes_text(model["memory_bytes"]) if model["memory_bytes"] else "-",
            f"{model['context_tokens']:,}",
            "yes" if model["loaded"] else "no",
        ]
        for model in models
    ]
    print_table(headings, rows)
