"""What a Go template can talk about, and what that is called in jinja.

A `Value` is a jinja expression and what it stands for: enough to know what its
fields are called and how Go would print it.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from engines.gguf.go_template.syntax import CannotTranslate

Constant = str | int | float | bool | None

_ELEMENTS: Mapping[str, str] = {
    "messages": "message",
    "tools": "tool",
    "tool_calls": "tool_call",
}
# Of each kind: a field's name in Go, in jinja, and the kind of what it is.
_FIELDS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "message": {
        "Role": ("role", "text"),
        "Content": ("content", "text"),
        "Thinking": ("thinking", "text"),
        "ToolCalls": ("tool_calls", "tool_calls"),
        "ToolName": ("name", "text"),
        "ToolCallID": ("tool_call_id", "text"),
        "Images": ("images", "list"),
    },
    "tool": {"Type": ("type", "text"), "Function": ("function", "function")},
    "function": {
        "Name": ("name", "text"),
        "Description": ("description", "text"),
        "Parameters": ("parameters", "schema"),
    },
    "schema": {
        "Type": ("type", "any"),
        "Required": ("required", "list"),
        "Properties": ("properties", "map"),
        "Description": ("description", "text"),
        "Enum": ("enum", "list"),
        "Items": ("items", "any"),
    },
    "tool_call": {"ID": ("id", "text"), "Function": ("function", "called")},
    "called": {"Name": ("name", "text"), "Arguments": ("arguments", "map")},
}
_PRINTED_AS_JSON = frozenset(
    {"tool", "tools", "tool_calls", "tool_call", "function", "called", "schema", "map", "list"}
)
_JSON = "(({}) | tojson(separators=(',', ':')))"


class Value(Struct, frozen=True):
    """A jinja expression, and what it stands for."""

    code: str
    kind: str = "any"

    @property
    def element_kind(self) -> str:
        """What a loop over it goes through."""
        return "schema" if self.kind == "map" else _ELEMENTS.get(self.kind, "any")


def root(*, of_turn: bool) -> Value:
    """Everything: `.` at the top of a template."""
    return Value("", "turn" if of_turn else "conversation")


_ROOT: Mapping[str, Value] = {
    "Messages": Value("go.messages", "messages"),
    "Tools": Value("tools", "tools"),
    "System": Value("go.system", "text"),
    "Response": Value("''", "text"),
    "Prompt": Value("''", "text"),
    "Suffix": Value("''", "text"),
    # Never there, but asked for by templates that show how calls are written.
    "ToolCalls": Value("[]", "tool_calls"),
    "Think": Value("enable_thinking", "any"),
    "IsThinkSet": Value("(enable_thinking is defined)", "bool"),
    "ThinkLevel": Value("reasoning_effort", "text"),
}
_TURN = {
    **_ROOT,
    "System": Value("go_system", "text"),
    "Prompt": Value("go_prompt", "text"),
    "Response": Value("go_response", "text"),
}


def field(base: Value, name: str) -> Value:
    """A field of a value. Raises `CannotTranslate` for one that nobody knows."""
    if base.kind in ("conversation", "turn"):
        found = (_TURN if base.kind == "turn" else _ROOT).get(name)
        if found is None:
            raise CannotTranslate(f"it uses .{name}, which nothing here stands for")
        return found
    known = _FIELDS.get(base.kind)
    if known is None:
        if base.kind == "map":
            return Value(f"({base.code})[{literal(name)}]", "any")
        raise CannotTranslate(f"it uses .{name} of what is no message or tool")
    if name not in known:
        # Go's parameters are what clients send: `Function.Parameters.Foo` is not there.
        raise CannotTranslate(f"it uses .{name}, which a {base.kind} does not have")
    jinja_name, kind = known[name]
    # Not with a dot: `items` and the like are methods, too.
    return Value(f"({base.code})[{literal(jinja_name)}]", kind)


def literal(value: Constant) -> str:
    """A constant in jinja."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if not isinstance(value, str):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    for letter, code in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        escaped = escaped.replace(letter, code)
    return f"'{escaped}'"


def printed(value: Value) -> str:
    """What Go prints of a value."""
    if value.kind in _PRINTED_AS_JSON:
        return _JSON.format(value.code)
    if value.kind in ("conversation", "turn", "message", "messages"):
        raise CannotTranslate(f"it prints a {value.kind}")
    if value.kind == "bool":
        return f"('true' if {value.code} else 'false')"
    if value.kind == "any":
        code = f"({value.code})"
        return f"({code} if {code} is string or {code} is not defined else {code} | tojson)"
    return value.code


def call(function: str, arguments: Sequence[Value]) -> Value:
    """A function's value. Raises `CannotTranslate` for one that nobody knows."""
    found = _FUNCTIONS.get(function)
    if found is None:
        raise CannotTranslate(f"it uses the function {function!r:.60}")
    least, most, write = found
    if not least <= len(arguments) <= most:
        raise CannotTranslate(f"it gives {len(arguments)} values to {function!r}")
    return write(arguments)


def _compared(sign: str) -> Callable[[Sequence[Value]], Value]:
    def write(arguments: Sequence[Value]) -> Value:
        first, *others = arguments
        parts = [f"({first.code}) {sign} ({other.code})" for other in others]
        return Value(f"({' or '.join(parts)})", "bool")

    return write


def _joined(word: str) -> Callable[[Sequence[Value]], Value]:
    def write(arguments: Sequence[Value]) -> Value:
        kinds = {argument.kind for argument in arguments}
        code = f" {word} ".join(f"({argument.code})" for argument in arguments)
        return Value(f"({code})", kinds.pop() if len(kinds) == 1 else "any")

    return write


def _sliced(arguments: Sequence[Value]) -> Value:
    value, first, *last = arguments
    end = last[0].code if last else ""
    return Value(f"({value.code})[{first.code}:{end}]", value.kind)


def _indexed(arguments: Sequence[Value]) -> Value:
    value, at = arguments
    return Value(f"({value.code})[{at.code}]", value.element_kind)


def _printed_together(arguments: Sequence[Value]) -> Value:
    return Value(f"({' ~ '.join(f'({printed(one)})' for one in arguments)})", "text")


_MANY = 16
_FUNCTIONS: Mapping[str, tuple[int, int, Callable[[Sequence[Value]], Value]]] = {
    "eq": (2, _MANY, _compared("==")),
    "ne": (2, 2, _compared("!=")),
    "lt": (2, 2, _compared("<")),
    "le": (2, 2, _compared("<=")),
    "gt": (2, 2, _compared(">")),
    "ge": (2, 2, _compared(">=")),
    "and": (1, _MANY, _joined("and")),
    "or": (1, _MANY, _joined("or")),
    "not": (1, 1, lambda arguments: Value(f"(not ({arguments[0].code}))", "bool")),
    "len": (1, 1, lambda arguments: Value(f"((({arguments[0].code}) or []) | length)", "number")),
    "slice": (2, 3, _sliced),
    "index": (2, 2, _indexed),
    "json": (1, 1, lambda arguments: Value(_JSON.format(arguments[0].code), "text")),
    "print": (1, _MANY, _printed_together),
    "currentDate": (0, 1, lambda arguments: Value("strftime_now('%Y-%m-%d')", "text")),
}
