"""What `/api/show` says of a model, for `penstock show` and for `/show` in a conversation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from gateway.cli.client import GatewayAnswered, GatewayClient
from gateway.cli.quantities import number_text

# part -> what a sentence calls it
PARTS: Mapping[str, str] = {
    "license": "licence",
    "modelfile": "Modelfile",
    "parameters": "parameters",
    "system": "system message",
    "template": "template",
}
_LICENSE_LINES = 2
_SYSTEM_LINES = 5
_MAX_ITEMS = 3  # of a list in metadata; a vocabulary has 100,000


def card_of(client: GatewayClient, model: str) -> dict[str, Any]:
    """What the gateway says of a model.

    Empty where the caller may not ask, which is no reason not to talk to it.
    """
    try:
        return client.post("/api/show", {"model": model})
    except GatewayAnswered as error:
        if error.status == 403:
            return {}
        raise


def part_of(shown: Mapping[str, Any], part: str) -> str:
    """One part of a model as text, empty where it has none."""
    found = shown.get(part) or ""
    if isinstance(found, list):
        return "\n".join(str(one) for one in found).strip("\n")  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return str(found).strip("\n")


def print_card(shown: Mapping[str, Any], *, verbose: bool = False) -> None:
    """Print what a model is, section by section."""
    for heading, rows in _sections(shown, verbose=verbose):
        if not rows:
            continue
        click.echo(f"  {heading}")
        width = max(len(row[0]) for row in rows)
        for name, *rest in rows:
            click.echo(f"    {name.ljust(width)}    {'    '.join(rest)}".rstrip())
        click.echo()


def _sections(
    shown: Mapping[str, Any], *, verbose: bool
) -> Iterator[tuple[str, Sequence[Sequence[str]]]]:
    yield "Model", _model(shown)
    capabilities: Sequence[str] = shown.get("capabilities") or []
    yield "Capabilities", [[one] for one in capabilities]
    if projector := shown.get("projector_info"):
        yield "Projector", [[name, _value(value)] for name, value in projector.items()]
    parameters = (line.split(maxsplit=1) for line in part_of(shown, "parameters").splitlines())
    yield "Parameters", [row for row in parameters if row]
    yield "System", [[line] for line in _first(part_of(shown, "system"), _SYSTEM_LINES)]
    yield "License", [[line] for line in _first(part_of(shown, "license"), _LICENSE_LINES)]
    if verbose:
        metadata: Mapping[str, Any] = shown.get("model_info") or {}
        yield "Metadata", [[name, _value(metadata[name])] for name in sorted(metadata)]
        tensors: Sequence[Mapping[str, Any]] = shown.get("tensors") or []
        yield "Tensors", [[one["name"], one["type"], _value(one["shape"])] for one in tensors]


def _model(shown: Mapping[str, Any]) -> list[list[str]]:
    details: Mapping[str, Any] = shown.get("details") or {}
    info: Mapping[str, Any] = shown.get("model_info") or {}
    architecture = info.get("general.architecture") or details.get("family") or ""
    count = info.get("general.parameter_count")
    rows = [
        ["architecture", str(architecture)],
        ["parameters", number_text(count) if count else str(details.get("parameter_size") or "")],
        ["context length", str(info.get(f"{architecture}.context_length") or "")],
        ["embedding length", str(info.get(f"{architecture}.embedding_length") or "")],
        ["quantization", str(details.get("quantization_level") or "")],
        ["parent model", str(details.get("parent_model") or "")],
        ["requires", str(shown.get("requires") or "")],
    ]
    return [row for row in rows if row[1]]


def _first(text: str, most: int) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [*lines[:most], "..."] if len(lines) > most else lines


def _value(value: object) -> str:
    if isinstance(value, list):
        items: list[object] = value  # pyright: ignore[reportUnknownVariableType]
        more = f", … {len(items)} in all" if len(items) > _MAX_ITEMS else ""
        return f"[{', '.join(str(one) for one in items[:_MAX_ITEMS])}{more}]"
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= 100 else f"{text[:100]}…"
