"""Says the fields of a create request as a Modelfile's instructions, of which engines make models.

They are never written as text: whatever a field holds cannot be read as something else.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from msgspec import Struct

from engines.modelfile_text import Instruction
from gateway.errors import BadRequest

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class Draft(Struct, frozen=True, kw_only=True):
    """The model that is to be."""

    source: str | None  # the engine's name of the model that it is made from
    files: Mapping[str, str]  # name -> digest
    adapters: Mapping[str, str]
    texts: Mapping[str, str | None]  # instruction -> its text
    licenses: Sequence[str]
    parameters: Mapping[str, Any]
    messages: Sequence[tuple[str, str]]  # role and content


def instructions_of(draft: Draft) -> list[Instruction]:
    """The instructions. Raises `BadRequest` for what none can say."""
    said = [("FROM", "", _name(draft.source))] if draft.source is not None else []
    for word, files in (("FROM", draft.files), ("ADAPTER", draft.adapters)):
        said += [(word, "", _of_file(name, digest)) for name, digest in sorted(files.items())]
    said += [(word, "", text) for word, text in draft.texts.items() if text is not None]
    said += [("LICENSE", "", text) for text in draft.licenses if text]
    for name, value in draft.parameters.items():
        said += [("PARAMETER", name, text) for text in _values(name, value)]
    said += [("MESSAGE", role, content) for role, content in draft.messages]
    return [Instruction(0, *one) for one in said]


def _of_file(name: str, digest: str) -> str:
    """A file that was sent before, by its digest; of a folder's files the name counts, too."""
    if not _DIGEST.fullmatch(digest):
        raise BadRequest(
            f"files: {digest[:100]!r} is no digest: sha256: and 64 hexadecimal digits",
            param="files",
        )
    last = name.replace("\\", "/").rpartition("/")[2]
    if last.lower().endswith(".gguf"):
        return f"@{digest}"
    if not _FILE.fullmatch(last):
        raise BadRequest(f"files: {name[:100]!r} is no name of a file", param="files")
    return f"@{digest} {last}"


def _values(name: str, value: Any) -> Iterator[str]:
    for one in cast("list[Any]", value) if isinstance(value, list) else [value]:
        if isinstance(one, bool):
            yield str(one).lower()
        elif isinstance(one, int | float | str):
            yield str(one)
        elif one is not None:
            raise BadRequest(f"parameters.{name[:60]} is no text and no number", param="parameters")


def _name(text: str) -> str:
    if not text or any(mark.isspace() for mark in text):
        raise BadRequest(f"from is {text[:100]!r}, which is no name", param="from")
    return text
