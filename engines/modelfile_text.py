'''Cuts the text of a Modelfile into its instructions.

An instruction is a word, in any case, and the rest of its line; a value that
begins with `"` or `"""` goes on until a line ends with the same. What the
instructions mean is for who reads them: the gguf engine, which makes a model, and
`penstock create`, which hands files over first.

A file whose first line ends as Windows ends lines has such ends everywhere; in any
other, a carriage return is part of what is said.
'''

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

INSTRUCTIONS = (
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER",
    "PARSER", "DRAFT", "REQUIRES",
)  # fmt: skip
_WITH_HEAD = ("PARAMETER", "MESSAGE")
_WORD = re.compile(r"[ \t]*([A-Za-z]+)(?:[ \t\r]+(.*))?", re.DOTALL)
_QUOTES = ('"""', '"')


class ModelfileInvalid(Exception):
    """A Modelfile that cannot be read, with the number of the line and what is wrong with it."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line} of the Modelfile: {reason}" if line else reason)


class Instruction(NamedTuple):
    """One instruction; `head` is the word before the value, where the instruction has one.

    `line` is 0 for one that never stood in a text."""

    line: int
    name: str
    head: str
    value: str


def instructions(text: str) -> Iterator[Instruction]:
    """Each instruction, quotes taken off its value. Raises `ModelfileInvalid`."""
    lines = _lines(text)
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
            head, value = (*value.split(None, 1), "", "")[:2]
        quote = next((quote for quote in _QUOTES if value.startswith(quote)), "")
        said = [value]
        while not _is_whole(said, quote):
            if at == len(lines):
                raise ModelfileInvalid(first, f"{name} has a quotation that does not end")
            said.append(lines[at])
            at += 1
        # What stands behind the last quote is cut off, and nothing that stands within.
        whole = "\n".join(said).rstrip()
        if not whole:
            raise ModelfileInvalid(first, f"{name} has no value")
        yield Instruction(first, name, head, whole[len(quote) : len(whole) - len(quote)])


def _lines(text: str) -> list[str]:
    """Split at line feeds and nothing else: whatever else there is may be meant."""
    first = text.partition("\n")[0]
    return (text.replace("\r\n", "\n") if first.endswith("\r") else text).split("\n")


def _is_whole(lines: Sequence[str], quote: str) -> bool:
    """Whether a value that begins with `quote` ends with the last of its lines."""
    end = lines[-1].rstrip()
    return not quote or (end.endswith(quote) and (len(lines) > 1 or len(end) >= 2 * len(quote)))
