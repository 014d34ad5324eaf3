"""`penstock create MODEL`: makes a model from a Modelfile.

Files that the Modelfile names lie on this machine, and the gateway perhaps on
another: each is sent under its digest, if the gateway does not have it yet.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.client import GatewayClient
from gateway.cli.embedded import library_options, opened_client
from gateway.cli.interrupted import ending_with
from gateway.cli.progress import Show, counted, shown_progress

if TYPE_CHECKING:
    from gateway.cli.modelfile import ModelfileFields

_PIECE_BYTES = 1024 * 1024
# What says how to read the weights that lie beside it.
_PATTERNS = ("*.json", "tokenizer.model", "*.jinja")
_WEIGHTS = (".safetensors", ".gguf")
_NO_LETTERS = re.compile(r"[^A-Za-z0-9_.-]+")


@click.command("create")
@click.argument("model")
@click.option(
    "-f", "--file", "modelfile", type=click.Path(path_type=Path), default=Path("Modelfile"),
    show_default=True, help="The Modelfile; - reads it from a pipe.",
)  # fmt: skip
@click.option("-q", "--quantize", metavar="TYPE", help="Quantize to TYPE, such as q4_K_M.")
@click.option("--json", "as_json", is_flag=True, help="Print each step as a line of JSON.")
@library_options
def command(  # noqa: PLR0913 - one parameter for each option
    model: str,
    modelfile: Path,
    quantize: str | None,
    *,
    as_json: bool,
    url: str | None,
    key: str | None,
    policy: Path | None,
) -> None:
    """Make MODEL from a Modelfile: from another model, GGUF files or a folder of safetensors."""
    from gateway.cli.modelfile import read_modelfile

    said = read_modelfile(modelfile)
    body: dict[str, Any] = {"model": model, **said.fields}
    if quantize:
        body["quantize"] = quantize
    sent = _Sources(said, modelfile.absolute().parent)
    with opened_client(url, key, policy) as client:
        _create(client, body, sent, as_json=as_json)


def create_of_file(client: GatewayClient, path: Path, *, as_json: bool = False) -> None:
    """Make a model of one file of this machine, or a folder of safetensors, named after it."""
    from gateway.cli.modelfile import ModelfileFields

    stem = path.name[: -len(".gguf")] if path.name.lower().endswith(".gguf") else path.name
    model = _NO_LETTERS.sub("-", stem).strip("-.")[:80]
    if not model:
        raise click.ClickException(f"{path} ends with no name for a model: use `penstock create`")
    sent = _Sources(ModelfileFields(sources=[str(path)]), path.parent)
    click.echo(f"making {model!r} of {path}", err=True)
    _create(client, {"model": model}, sent, as_json=as_json)


def _create(
    client: GatewayClient, body: dict[str, Any], sent: "_Sources", *, as_json: bool
) -> None:
    again = "stopped; files that were sent are kept: type the same again to go on"
    with ending_with(again), shown_progress(as_json=as_json) as show:
        body |= sent.handed_over(client, show)
        status = None
        for step in client.stream("/api/create", {**body, "stream": True}):
            status = step.get("status")
            show(step)
        if status != "success":
            raise click.ClickException("it broke off before the end; type the same again")


class _Sources:
    """What FROM and ADAPTER name: another model, or files of this machine, found before asking."""

    def __init__(self, said: "ModelfileFields", folder: Path) -> None:
        self._model: str | None = None
        self._files: dict[str, Path] = {}
        self._adapters: dict[str, Path] = {}
        for source in said.sources:
            found = _files_of("FROM", source, folder)
            if found is not None:
                _add(self._files, found)
            elif self._model is None:
                self._model = source
            else:
                raise click.ClickException(f"FROM {self._model} and FROM {source}: a model has one")
        for adapter in said.adapters:
            found = _files_of("ADAPTER", adapter, folder)
            if found is None:
                raise click.ClickException(f"ADAPTER {adapter}: there is no such file")
            _add(self._adapters, found)

    def handed_over(self, client: GatewayClient, show: Show) -> dict[str, Any]:
        """Send the files that the gateway lacks; the fields of `/api/create` that name them."""
        fields: dict[str, Any] = {}
        if self._model is not None:
            fields["from"] = self._model
        for field, files in (("files", self._files), ("adapters", self._adapters)):
            if files:
                fields[field] = {
                    name: _handed_over(client, name, path, show) for name, path in files.items()
                }
        return fields


def _files_of(instruction: str, text: str, folder: Path) -> Sequence[Path] | None:
    """The files that a value names; None if it is a model's name."""
    path = folder / Path(text).expanduser()
    looks_like_a_path = text.startswith((".", "/", "~")) or text.lower().endswith(_WEIGHTS)
    if path.is_file() and path.suffix == ".safetensors":
        path = path.parent  # nothing can be made of tensors without what lies beside them
    if path.is_file():
        return [path]
    if path.is_dir():
        weights = _weights_in(path)
        if not weights:
            raise click.ClickException(
                f"{instruction} {text}: the folder has no *.safetensors and no *.gguf"
            )
        beside = {one for pattern in _PATTERNS for one in path.glob(pattern)}
        return sorted([*weights, *beside])
    if looks_like_a_path:
        raise click.ClickException(f"{instruction} {text}: there is no file {path}")
    return None


def _weights_in(folder: Path) -> list[Path]:
    """The files of a folder that hold its model; there may be the same tensors twice."""
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.gguf"))
    names = {path.name for path in found}
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_bytes())
        needed = set(index["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError):
        needed = {"model.safetensors"}
    return [path for path in found if path.name in needed] if needed <= names else found


def _add(files: dict[str, Path], found: Sequence[Path]) -> None:
    for path in found:
        if files.setdefault(path.name, path) != path:
            raise click.ClickException(
                f"{files[path.name]} and {path} have one name; give one of them another"
            )


def _handed_over(client: GatewayClient, name: str, path: Path, show: Show) -> str:
    """The digest of a file that the gateway has now."""
    size = path.stat().st_size
    hasher = hashlib.sha256()
    for piece in counted(_pieces(path), f"reading {name}", size, show):
        hasher.update(piece)
    digest = f"sha256:{hasher.hexdigest()}"
    if client.has(f"/api/blobs/{digest}"):
        show({"status": f"{name} is there already", "digest": digest})
    else:
        content = counted(_pieces(path), f"sending {name}", size, show)
        client.upload(f"/api/blobs/{digest}", content, size)
    return digest


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
