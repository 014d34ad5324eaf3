'''Writes the fields of a create request as a Modelfile, which is what engines make models of.

Texts stand between `"""`, so one that has these marks itself cannot be said.
'''

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Struct

from gateway.errors import BadRequest

_QUOTE = '"""'
_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Draft(Struct, frozen=True, kw_only=True):
    """The model that is to be."""

    source: str | None  # the engine's name of the model that it is made from
    files: Mapping[str, str]  # name -> digest
    adapters: Mapping[str, str]
    texts: Mapping[str, str | None]  # instruction -> its text
    licenses: Sequence[str]
    parameters: Mapping[str, Any]
    messages: Sequence[tuple[str, str]]  # role and content


def to_modelfile(draft: Draft) -> str:
    """The Modelfile. Raises `BadRequest` for what cannot be said in one."""
    lines = [] if draft.source is None else [f"FROM {_one_line(draft.source, 'from')}"]
    lines += [_of_file("FROM", name, digest) for name, digest in sorted(draft.files.items())]
    lines += [_of_file("ADAPTER", name, digest) for name, digest in sorted(draft.adapters.items())]
    lines += [f"{word} {_quoted(text, word)}" for word, text in draft.texts.items() if text]
    lines += [f"LICENSE {_quoted(text, 'license')}" for text in draft.licenses if text]
    for name, value in draft.parameters.items():
        lines += _parameter(name, value)
    for role, content in draft.messages:
        lines.append(f"MESSAGE {_one_line(role, 'messages')} {_quoted(content, 'messages')}")
    return "\n".join(lines) + "\n"


def _of_file(instruction: str, name: str, digest: str) -> str:
    """A file that was sent before, by its digest; of a folder's files the name counts, too."""
    if not _DIGEST.fullmatch(digest):
        raise BadRequest(
            f"files: {digest[:100]!r} is no digest: sha256: and 64 hexadecimal digits",
            param="files",
        )
    last = name.replace("\\", "/").rpartition("/")[2]
    if last.lower().endswith(".gguf"):
        return f"{instruction} @{digest}"
    if not _FILE.fullmatch(last):
        raise BadRequest(f"files: {name[:100]!r} is no name of a file", param="files")
    return f"{instruction} @{digest} {last}"


def _parameter(name: str, value: Any) -> list[str]:
    if not _WORD.fullmatch(name):
        raise BadRequest(f"parameters has {name[:60]!r}, which is no name", param="parameters")
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    lines: list[str] = []
    for one in values:
        if isinstance(one, bool):
            lines.append(f"PARAMETER {name} {str(one).lower()}")
        elif isinstance(one, int | float):
            lines.append(f"PARAMETER {name} {one}")
        elif isinstance(one, str):
            lines.append(f"PARAMETER {name} {_quoted(one, 'parameters')}")
        elif one is not None:
            raise BadRequest(f"parameters.{name} is no text and no number", param="parameters")
    return lines


def _quoted(text: str, field: str) -> str:
    if _QUOTE in text or text.endswith('"'):
        raise BadRequest(
            f"{field.lower()} has {_QUOTE} in it or ends with a quote, which a Modelfile cannot "
            "hold",
            param=field.lower(),
        )
    return f"{_QUOTE}{text}{_QUOTE}"


def _one_line(text: str, field: str) -> str:
    if not text or any(mark.isspace() for mark in text):
        raise BadRequest(f"{field} is {text[:100]!r}, which is no name", param=field)
    return text
