'''Reads and writes Modelfiles: what a model is made from.

    # a comment
    FROM qwen3:0.6b
    PARAMETER temperature 0.7
    SYSTEM """
    More than
    one line.
    """

Nothing here looks at files or other models: that is create.py.
'''

import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from engines.errors import RequestRefused
from engines.gguf.parameters import Value, read_parameter
from engines.gguf.recipe import ROLES, Said
from engines.modelfile_text import Instruction, ModelfileInvalid, instructions

MAX_CHARS = 1024 * 1024
_VERSION = re.compile(r"v?[0-9]+(\.[0-9]+){0,2}([-+][0-9A-Za-z.+-]+)?")
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


def read_modelfile(said_in: str | Sequence[Instruction]) -> Modelfile:
    """Understand a Modelfile's text, or the instructions that one would have.

    Raises `RequestRefused` with what is wrong, and with the line where there is one."""
    texts = [said_in] if isinstance(said_in, str) else [said.value for said in said_in]
    if sum(map(len, texts)) > MAX_CHARS:
        raise RequestRefused(f"the Modelfile has over {MAX_CHARS} characters", param="modelfile")
    lists: dict[str, list[str]] = {"FROM": [], "ADAPTER": [], "LICENSE": []}
    once: dict[str, str] = {}
    parameters: dict[str, Value] = {}
    messages: list[Said] = []
    for said in _instructions(said_in):
        if said.name in lists:
            lists[said.name].append(said.value)
        elif said.name in _ONCE:
            once[said.name] = said.value
        elif said.name == "PARAMETER":
            _add_parameter(said, parameters)
        elif said.name == "MESSAGE":
            messages.append(_read_message(said))
        else:
            raise _refused(said.line, f"{said.name} is not supported")
    if not lists["FROM"]:
        raise RequestRefused("the Modelfile has no FROM", param="modelfile")
    requires = once.get("REQUIRES")
    if requires and not _VERSION.fullmatch(requires):
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
    """A Modelfile that reads back as this one, but for texts that no quotation can hold."""
    lines = [_line("FROM", source) for source in modelfile.sources]
    for name, text in (
        ("TEMPLATE", modelfile.template),
        ("SYSTEM", modelfile.system),
        ("RENDERER", modelfile.renderer),
        ("PARSER", modelfile.parser),
        ("REQUIRES", modelfile.requires),
    ):
        if text:
            lines.append(_line(name, text))
    lines += _parameter_lines("PARAMETER ", modelfile.parameters)
    lines += [_line("ADAPTER", adapter) for adapter in modelfile.adapters]
    lines += [_line(f"MESSAGE {said.role}", said.content) for said in modelfile.messages]
    lines += [_line("LICENSE", text) for text in modelfile.licenses]
    return "\n".join(lines) + "\n"


def parameter_lines(parameters: Mapping[str, Value]) -> list[str]:
    """One line for each value: its name, and the value as a Modelfile has it."""
    return _parameter_lines("", parameters)


def _parameter_lines(word: str, parameters: Mapping[str, Value]) -> list[str]:
    return [
        _line(word + name, _shown(one), always=isinstance(one, str))
        for name, value in parameters.items()
        for one in (value if isinstance(value, list) else [value])
    ]


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def _line(head: str, text: str, *, always: bool = False) -> str:
    quoted = _quoted(text, always=always)
    if quoted is None:
        return f"# {head} is left out: a line of its text ends with what would end the quotation"
    return f"{head} {quoted}"


def _quoted(text: str, *, always: bool = False) -> str | None:
    """The text in the first quotes that it can stand in, if there are any."""
    if "\n" in text or '"' in text:
        quotes = ('"""', '"', "")
    elif always or text != text.strip() or not text:
        quotes = ('"', '"""')
    else:
        quotes = ("", '"')
    return next((q + text + q for q in quotes if _reads_back(q + text + q, text)), None)


def _reads_back(quoted: str, text: str) -> bool:
    try:
        return [said.value for said in instructions(f"FROM x\nSYSTEM {quoted}\n")] == ["x", text]
    except ModelfileInvalid:
        return False


def _instructions(said_in: str | Sequence[Instruction]) -> Iterator[Instruction]:
    if not isinstance(said_in, str):
        yield from said_in
        return
    try:
        yield from instructions(said_in.removeprefix("\ufeff"))
    except ModelfileInvalid as error:
        raise RequestRefused(str(error), param="modelfile") from None


def _add_parameter(said: Instruction, parameters: dict[str, Value]) -> None:
    name = said.head.lower()
    try:
        value = read_parameter(name, said.value)
    except RequestRefused as error:
        raise _refused(said.line, error.message) from None
    if name == "stop":
        stops = parameters.setdefault("stop", [])
        assert isinstance(stops, list)
        stops.append(said.value)
    else:
        parameters[name] = value


def _read_message(said: Instruction) -> Said:
    if said.head not in ROLES:
        reason = f"MESSAGE has role {said.head!r:.50}; it can be {', '.join(ROLES)}"
        raise _refused(said.line, reason)
    return Said(said.head, said.value)


def _refused(line: int, reason: str) -> RequestRefused:
    return RequestRefused(str(ModelfileInvalid(line, reason)), param="modelfile")
