"""Reads a Modelfile as far as a client must: into the fields of `/api/create`.

Which of its instructions name files of this machine is for create.py. What instructions and
parameters mean, and whether they exist, is the gateway's to say: it may run a model that this
program cannot.
"""

import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from msgspec import Struct, field

from engines.modelfile_text import Instruction, ModelfileInvalid, instructions

STDIN = Path("-")
_NUMBER = re.compile(r"[+-]?\d+")
_BOOLEANS = {"true": True, "false": False}


class ModelfileFields(Struct, kw_only=True):
    """What `/api/create` is told, and what FROM and ADAPTER said, in order."""

    sources: list[str] = field(default_factory=list[str])
    adapters: list[str] = field(default_factory=list[str])
    fields: dict[str, Any] = field(default_factory=dict[str, Any])


def read_modelfile(path: Path) -> ModelfileFields:
    """Read a file. Raises `ClickException`, with the line."""
    try:
        content = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be read: {error.strerror}") from None
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return fields_of(content.decode(encoding))
    except UnicodeDecodeError:
        raise click.ClickException(f"{path} is no text: it is not UTF-8") from None


def fields_of(text: str) -> ModelfileFields:
    """Read the text of a Modelfile. Raises `ClickException`, with the line."""
    try:
        return _fields(instructions(text))
    except ModelfileInvalid as error:
        raise click.ClickException(str(error)) from None


def _fields(said: Iterator[Instruction]) -> ModelfileFields:
    found = ModelfileFields()
    for line, instruction, head, value in said:
        match instruction:
            case "FROM":
                found.sources.append(value)
            case "ADAPTER":
                found.adapters.append(value)
            case "PARAMETER":
                _add_parameter(found.fields.setdefault("parameters", {}), head.lower(), value)
            case "MESSAGE":
                if not value:
                    raise _wrong(line, "MESSAGE has a role and a text")
                message = {"role": head.lower(), "content": value}
                found.fields.setdefault("messages", []).append(message)
            case "DRAFT":
                raise _wrong(line, "DRAFT is not supported")
            case "LICENSE":
                found.fields.setdefault("license", []).append(value)
            case _:
                found.fields[instruction.lower()] = value
    if not found.sources:
        raise click.ClickException("the Modelfile has no FROM")
    return found


def typed(text: str) -> int | float | bool | str:
    """The value of a parameter: a number or truth where the text is one."""
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _NUMBER.fullmatch(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text


def _add_parameter(parameters: dict[str, Any], name: str, value: str) -> None:
    if name == "stop":  # the only one that may stand on several lines, and always a text
        parameters.setdefault(name, []).append(value)
    else:
        parameters[name] = typed(value)


def _wrong(line: int, reason: str) -> click.ClickException:
    return click.ClickException(str(ModelfileInvalid(line, reason)))
