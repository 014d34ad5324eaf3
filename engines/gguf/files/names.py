"""Names of models as Ollama spells them: `[HOST/][NAMESPACE/]MODEL[:TAG]`.

A name becomes a path of four folders, and an address at a registry, so every
part is held to letters, digits, `_`, `-` and `.`, none of them first but letters,
digits and `_`: no part can be `..`, empty or hidden. Two names that differ in
case alone are one model.
"""

import re
from pathlib import PurePosixPath

from msgspec import Struct

from engines.errors import RequestRefused

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_MAX_HOST_CHARS = 350
_MAX_PART_CHARS = 80
_MAX_SHOWN_CHARS = 100
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_MARKS = {"HOST": '"_", "-", "." and ":"', "NAMESPACE": '"_" and "-"'}
_SHAPE = "a name is [HOST/][NAMESPACE/]MODEL[:TAG]"


class ModelName(Struct, frozen=True):
    """A whole name; made by `parse_name`, so every part is safe in a path."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def display(self) -> str:
        """The name with what need not be said left out; the tag always stays."""
        short = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{short}"
        if self.namespace.lower() != DEFAULT_NAMESPACE:
            return f"{self.namespace}/{short}"
        return short

    @property
    def path(self) -> PurePosixPath:
        """Where the manifest is, below a folder's `manifests`."""
        return PurePosixPath(self.host, self.namespace, self.model, self.tag)

    @property
    def folded(self) -> tuple[str, str, str, str]:
        """The same for names that differ in case alone."""
        return (
            self.host.lower(),
            self.namespace.lower(),
            self.model.lower(),
            self.tag.lower(),
        )


def parse_name(text: str, *, param: str = "model") -> ModelName:
    """Read a name and fill its defaults in. Raises `RequestRefused` that says what is wrong."""
    before, slash, last = text.rpartition("/")
    model, colon, tag = last.partition(":")
    parts = [*before.split("/"), model] if slash else [model]
    if len(parts) > 3:
        raise _refused(text, f"it has {len(parts)} parts; {_SHAPE}", param)
    host, namespace = DEFAULT_HOST, DEFAULT_NAMESPACE
    if len(parts) == 3:
        host, namespace = parts[0], parts[1]
    elif len(parts) == 2:
        namespace = parts[0]
    name = ModelName(host, namespace, model, tag if colon else DEFAULT_TAG)
    _check(text, name, param)
    return name


def name_of_path(parts: tuple[str, ...]) -> ModelName | None:
    """The name whose `path` has these parts; None if no name has."""
    if len(parts) != 4:
        return None
    name = ModelName(*parts)
    try:
        _check("/".join(parts), name, "model")
    except RequestRefused:
        return None
    return name


def shown(text: str) -> str:
    """A name for a message: quoted, and never long."""
    return repr(text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}…")


def _check(text: str, name: ModelName, param: str) -> None:
    for part, value, pattern, longest in (
        ("HOST", name.host, _HOST, _MAX_HOST_CHARS),
        ("NAMESPACE", name.namespace, _NAMESPACE, _MAX_PART_CHARS),
        ("MODEL", name.model, _PART, _MAX_PART_CHARS),
        ("TAG", name.tag, _PART, _MAX_PART_CHARS),
    ):
        if not value:
            raise _refused(text, f"its {part} is empty; {_SHAPE}", param)
        if len(value) > longest:
            raise _refused(text, f"its {part} has {len(value)} characters of {longest}", param)
        if not pattern.fullmatch(value):
            marks = _MARKS.get(part, '"_", "-" and "."')
            raise _refused(
                text,
                f"{part} {shown(value)} may only have letters, digits, {marks}, and begins with "
                f'a letter, a digit or "_"; {_SHAPE}',
                param,
            )


def _refused(text: str, reason: str, param: str) -> RequestRefused:
    return RequestRefused(f"{shown(text)} is not the name of a model: {reason}", param=param)
