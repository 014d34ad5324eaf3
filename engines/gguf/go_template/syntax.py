"""What a Go template is made of, once it is read; see Go's text/template."""

from msgspec import Struct


class CannotTranslate(Exception):
    """A template that is wrong, or uses what has no counterpart; the message names it."""


class MalformedTemplate(CannotTranslate):
    """A template that Go would refuse too: whoever wrote it can only have made a mistake."""


class Literal(Struct, frozen=True):
    """A text, number, bool, or None for `nil`."""

    value: str | int | float | bool | None


class Dot(Struct, frozen=True):
    """`.`: what the nearest `range` or `with` is about, or everything."""


class Variable(Struct, frozen=True):
    """`$name`; `$` alone is everything."""

    name: str


class Field(Struct, frozen=True):
    """`base.name`."""

    base: "Expression"
    name: str


class Call(Struct, frozen=True):
    """`function argument argument`, or with the argument before a `|`."""

    function: str
    arguments: list["Expression"]


Expression = Literal | Dot | Variable | Field | Call


class Text(Struct, frozen=True):
    """What stands between actions, trimmed as they ask for."""

    text: str


class Output(Struct, frozen=True):
    """Print a value."""

    value: Expression


class Assign(Struct, frozen=True):
    """`$name := value`, or `$name = value` which changes one that is there."""

    name: str
    value: Expression
    declares: bool


class If(Struct, frozen=True):
    """`if`; with `binds_dot` it is `with`, and `.` is the condition inside."""

    condition: Expression
    body: list["Node"]
    otherwise: list["Node"]
    binds_dot: bool = False


class Range(Struct, frozen=True):
    """`range`; `key` and `value` are names of variables, empty where there are none."""

    over: Expression
    key: str
    value: str
    body: list["Node"]
    otherwise: list["Node"]


class Leave(Struct, frozen=True):
    """`break` or `continue`."""

    word: str


Node = Text | Output | Assign | If | Range | Leave
