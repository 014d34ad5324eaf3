'''Cuts the text of a Modelfile into its instructions.

An instruction is a word, in any case, and the rest of its line; a value that
begins with `"` or `"""` goes on until a line ends with the same. What the
instructions mean is for who reads them: the gguf engine, which makes a model, and
`penstock create`, which hands files over first.
'''

import re
from collections.abc import Iterator
from typing import NamedTuple

INSTRUCTIONS = (
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER",
    "PARSER", "DRAFT", "REQUIRES",
)  # fmt: skip
_WITH_HEAD = ("PARAMETER", "MESSAGE")
_WORD = re.compile(r"[ \t]*([A-Za-z]+)(?:[ \t]+(.*))?", re.DOTALL)


class ModelfileInvalid(Exception):
    """A Modelfile that cannot be read, with the number of the line and what is wrong with it."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line} of the Modelfile: {reason}")


class Instruction(NamedTuple):
    """One instruction; `head` is the word before the value, where the instruction has one."""

    line: int
    name: str
    head: str
    value: str


def instructions(text: str) -> Iterator[Instruction]:
    """Each instruction, quotes taken off its value. Raises `ModelfileInvalid`."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        first, line = at + 1, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _WORD.fullmatch(line)
        name = found[1].upper() if found else ""
        if found is None or name not in INSTRUCTIONS:
            known = ", ".join(INSTRUCTIONS)
            reason = f"there is no instruction {line.split()[0]!r:.50} ({known})"
            raise ModelfileInvalid(first, reason)
        head, value = "", (found[2] or "").lstrip()
        if name in _WITH_HEAD:
            head, _, value = value.partition(" ")
            head, value = head.rstrip(), value.lstrip()
        while (whole := _unquoted(value)) is None:
            if at == len(lines):
                raise ModelfileInvalid(first, f"{name} has a quotation that does not end")
            value = f"{value}\n{lines[at]}"
            at += 1
        if not whole and not value.startswith('"'):
            raise ModelfileInvalid(first, f"{name} has no value")
        yield Instruction(first, name, head, whole)


def _unquoted(text: str) -> str | None:
    """A value without its quotes; None if its end has not come yet."""
    # What stands behind the last quote is cut off, and nothing that stands within.
    ended = text.rstrip()
    for quote in ('"""', '"'):
        if text.startswith(quote):
            ends = len(ended) >= 2 * len(quote) and ended.endswith(quote)
            return ended[len(quote) : -len(quote)] if ends else None
    return ended
