'''Reads and writes Modelfiles: what a model is made from.

    # a comment
    FROM qwen3:0.6b
    PARAMETER temperature 0.7
    SYSTEM """
    More than
    one line.
    """

An instruction is a word, in any case, and the rest of its line; a value that
begins with `"` or `"""` goes on until a line ends with the same. Nothing here
looks at files or other models: that is create.py.
'''

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from engines.errors import RequestRefused
from engines.gguf.parameters import Value, read_parameter
from engines.gguf.recipe import ROLES, Said

MAX_CHARS = 1024 * 1024
_WORD = re.compile(r"[ \t]*([A-Za-z]+)(?:[ \t]+(.*))?", re.DOTALL)
_VERSION = re.compile(r"v?[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)?")
INSTRUCTIONS = (
    "FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "RENDERER",
    "PARSER", "DRAFT", "REQUIRES",
)  # fmt: skip
# Where the last of several lines counts.
_ONCE = ("TEMPLATE", "SYSTEM", "RENDERER", "PARSER", "REQUIRES")


class Modelfile(Struct, frozen=True, kw_only=True):
    """A Modelfile's instructions; `sources` are its FROMs, in order. None means: not said."""

    sources: tuple[str, ...]
    parameters: Mapping[str, Value] = {}
    template: str | None = None
    system: str | None = None
    adapters: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()
    messages: tuple[Said, ...] = ()
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None


def read_modelfile(text: str) -> Modelfile:
    """Parse a Modelfile. Raises `RequestRefused` with the line and what is wrong with it."""
    if len(text) > MAX_CHARS:
        raise RequestRefused(f"the Modelfile has over {MAX_CHARS} characters", param="modelfile")
    lists: dict[str, list[str]] = {"FROM": [], "ADAPTER": [], "LICENSE": []}
    once: dict[str, str] = {}
    parameters: dict[str, Value] = {}
    messages: list[Said] = []
    for line, instruction, argument in _instructions(text.removeprefix("\ufeff")):
        if instruction in lists:
            lists[instruction].append(argument)
        elif instruction in _ONCE:
            once[instruction] = argument
        elif instruction == "PARAMETER":
            _add_parameter(line, argument, parameters)
        elif instruction == "MESSAGE":
            messages.append(_read_message(line, argument))
        else:
            raise _wrong(line, f"{instruction} is not supported")
    if not lists["FROM"]:
        raise RequestRefused("the Modelfile has no FROM", param="modelfile")
    requires = once.get("REQUIRES")
    if requires is not None and not _VERSION.fullmatch(requires):
        raise RequestRefused(f"REQUIRES {requires!r:.50} is not a version", param="modelfile")
    return Modelfile(
        sources=tuple(lists["FROM"]),
        parameters=parameters,
        template=once.get("TEMPLATE"),
        system=once.get("SYSTEM"),
        adapters=tuple(lists["ADAPTER"]),
        licenses=tuple(lists["LICENSE"]),
        messages=tuple(messages),
        renderer=once.get("RENDERER"),
        parser=once.get("PARSER"),
        requires=requires,
    )


def write_modelfile(modelfile: Modelfile) -> str:
    """A Modelfile that reads back as this one."""
    lines = [f"FROM {_quoted(source)}" for source in modelfile.sources]
    for name, text in (
        ("TEMPLATE", modelfile.template),
        ("SYSTEM", modelfile.system),
        ("RENDERER", modelfile.renderer),
        ("PARSER", modelfile.parser),
        ("REQUIRES", modelfile.requires),
    ):
        if text:
            lines.append(f"{name} {_quoted(text)}")
    lines += [f"PARAMETER {line}" for line in parameter_lines(modelfile.parameters)]
    lines += [f"ADAPTER {_quoted(adapter)}" for adapter in modelfile.adapters]
    lines += [f"MESSAGE {said.role} {_quoted(said.content)}" for said in modelfile.messages]
    lines += [f"LICENSE {_quoted(text)}" for text in modelfile.licenses]
    return "\n".join(lines) + "\n"


def parameter_lines(parameters: Mapping[str, Value]) -> list[str]:
    """One line for each value: its name, and the value as a Modelfile has it."""
    lines: list[str] = []
    for name, value in parameters.items():
        values: Sequence[Value] = value if isinstance(value, list) else [value]
        for one in values:
            lines.append(f"{name} {_quoted(_shown(one), always=isinstance(one, str))}")
    return lines


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def _instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Each instruction with its line's number and its argument, quotes taken off."""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        first, line = at + 1, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _WORD.fullmatch(line)
        instruction = found[1].upper() if found else ""
        if found is None or instruction not in INSTRUCTIONS:
            word = line.split()[0]
            raise _wrong(first, f"there is no instruction {word!r:.50} ({', '.join(INSTRUCTIONS)})")
        head, argument = "", (found[2] or "").lstrip()
        if instruction in ("PARAMETER", "MESSAGE"):  # a word comes before the value
            head, _, argument = argument.partition(" ")
            argument = argument.lstrip()
        while (value := _unquoted(argument)) is None:
            if at == len(lines):
                raise _wrong(first, f"{instruction} has a quotation that does not end")
            argument = f"{argument}\n{lines[at]}"
            at += 1
        if not value and not argument.startswith('"'):
            raise _wrong(first, f"{instruction} has no value")
        yield first, instruction, f"{head} {value}" if head else value


def _unquoted(text: str) -> str | None:
    """A value without its quotes; None if its end has not come yet."""
    for quote in ('"""', '"'):
        if text.startswith(quote):
            if text.rstrip().endswith(quote):
                text = text.rstrip()  # what stands after the end, and nothing within
            ends = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : -len(quote)] if ends else None
    return text.rstrip()


def _quoted(text: str, *, always: bool = False) -> str:
    if "\n" in text or '"' in text:
        return f'"""{text}"""'
    return f'"{text}"' if always or text != text.strip() or not text else text


def _add_parameter(line: int, argument: str, parameters: dict[str, Value]) -> None:
    name, _, text = argument.partition(" ")
    try:
        value = read_parameter(name.lower(), text)
    except RequestRefused as error:
        raise _wrong(line, error.message) from None
    if name.lower() == "stop":
        stops = parameters.setdefault("stop", [])
        assert isinstance(stops, list)
        stops.append(text)
    else:
        parameters[name.lower()] = value


def _read_message(line: int, argument: str) -> Said:
    role, _, content = argument.partition(" ")
    if role not in ROLES:
        raise _wrong(line, f"MESSAGE has role {role!r:.50}; it can be {', '.join(ROLES)}")
    return Said(role, content)


def _wrong(line: int, reason: str) -> RequestRefused:
    return RequestRefused(f"line {line} of the Modelfile: {reason}", param="modelfile")
