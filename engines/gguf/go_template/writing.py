"""Says in jinja what a Go template says, for the templates that Ollama's models bring.

Two kinds of templates are told apart by whether they mention `.Messages`. Those
that do are written for a whole conversation. The older ones are written for one
turn (`.System`, `.Prompt`, `.Response`) and are gone through once for each; in
the last turn they end behind the response, which is empty, or what the answer is
to begin with. For both, neighbouring messages of one role are one message first.

Everything is written as expressions and no text stands between them, so jinja's
own rules about white space change nothing.
"""

from collections.abc import Iterator, Sequence

from engines.gguf.go_template.formatting import formatted
from engines.gguf.go_template.reading import read_template
from engines.gguf.go_template.syntax import (
    Assign,
    Call,
    CannotTranslate,
    Dot,
    Expression,
    Field,
    If,
    Leave,
    Literal,
    MalformedTemplate,
    Node,
    Output,
    Range,
    Text,
    Variable,
)
from engines.gguf.go_template.values import Value, call, field, literal, printed, root

_CONVERSATION = (
    "{%- set go = namespace(system='', messages=messages | _neighbours_joined) -%}"
    "{%- for message in go.messages -%}{%- if message.role == 'system' -%}"
    "{%- set go.system = (go.system ~ '\\n\\n' ~ message.content) if go.system"
    " else message.content -%}"
    "{%- endif -%}{%- endfor -%}"
)
# A turn is said as soon as a message comes that has no place in it any more.
_TURNS = (
    "{{%- macro go_turn(go_system, go_prompt, go_response) -%}}{turn}{{%- endmacro -%}}"
    "{{%- macro go_last(go_system, go_prompt, go_response) -%}}{last}{{%- endmacro -%}}"
    "{{%- set go = namespace(system='', prompt='', response='') -%}}"
    "{{%- for message in messages | _neighbours_joined -%}}"
    "{{%- if message.role == 'system' -%}}"
    "{{%- if go.system or go.prompt or go.response -%}}{said}{{%- endif -%}}"
    "{{%- set go.system = message.content -%}}"
    "{{%- elif message.role == 'user' -%}}"
    "{{%- if go.prompt or go.response -%}}{said}{{%- endif -%}}"
    "{{%- set go.prompt = message.content -%}}"
    "{{%- elif message.role == 'assistant' -%}}"
    "{{%- if go.response -%}}{said}{{%- endif -%}}"
    "{{%- set go.response = message.content -%}}"
    "{{%- endif -%}}{{%- endfor -%}}"
    "{{{{- go_last(go.system, go.prompt, go.response) -}}}}"
)
_SAID = (
    "{{- go_turn(go.system, go.prompt, go.response) -}}"
    "{%- set go.system = '' -%}{%- set go.prompt = '' -%}{%- set go.response = '' -%}"
)


def to_jinja(source: str) -> str:
    """The template in jinja. Raises `CannotTranslate` that names what it cannot say."""
    nodes = read_template(source)
    fields = set(_fields(nodes))
    if "Messages" in fields:
        return _CONVERSATION + _Writer(nodes, of_turn=False).written()
    if not fields & {"Prompt", "Response", "System"}:
        raise CannotTranslate("it mentions neither .Messages nor .Prompt")
    if "Response" not in fields:
        nodes = [*nodes, Output(Field(Dot(), "Response"))]
    cut, _ = _to_response(nodes)
    return _TURNS.format(
        turn=_Writer(nodes, of_turn=True).written(),
        last=_Writer(cut, of_turn=True).written(),
        said=_SAID,
    )


def _fields(parts: Sequence[Node | Expression]) -> Iterator[str]:
    """The names of all fields that are mentioned anywhere."""
    waiting: list[object] = list(parts)
    while waiting:
        found = waiting.pop()
        if isinstance(found, Field):
            yield found.name
        if isinstance(found, list):
            waiting += found
        elif hasattr(found, "__struct_fields__"):
            waiting += [getattr(found, name) for name in found.__struct_fields__]  # type: ignore[attr-defined]


def _to_response(nodes: Sequence[Node]) -> tuple[list[Node], bool]:
    """The nodes up to the first that prints the response, with it; and whether there was one."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Output) and "Response" in set(_fields([node])):
            return [*kept, Output(_up_to_response(node.value))], True
        if isinstance(node, If):
            body, found = _to_response(node.body)
            if found:
                kept.append(If(node.condition, body, [], node.binds_dot))
                return kept, True
            otherwise, found = _to_response(node.otherwise)
            kept.append(If(node.condition, body, otherwise, node.binds_dot))
            if found:
                return kept, True
        else:
            kept.append(node)
    return kept, False


def _up_to_response(value: Expression) -> Expression:
    """A value without what a function would print behind the response."""
    if not isinstance(value, Call):
        return value
    for place, argument in enumerate(value.arguments):
        if "Response" in set(_fields([argument])):
            return Call(value.function, [*value.arguments[:place], _up_to_response(argument)])
    return value


class _Writer:
    """Writes nodes once; knows which variables there are and what `.` is."""

    def __init__(self, nodes: Sequence[Node], *, of_turn: bool) -> None:
        self._nodes = nodes
        self._root = root(of_turn=of_turn)
        self._changed = set(_changed(nodes))
        self._scopes: list[dict[str, Value]] = [{}]
        self._dots: list[Value] = [self._root]
        self._num_names = 0

    def written(self) -> str:
        return self._body(self._nodes)

    def _body(self, nodes: Sequence[Node]) -> str:
        self._scopes.append({})
        try:
            return "".join(self._node(node) for node in nodes)
        finally:
            self._scopes.pop()

    def _node(self, node: Node) -> str:
        if isinstance(node, Text):
            return f"{{{{- {literal(node.text)} -}}}}"
        if isinstance(node, Output):
            return f"{{{{- {printed(self._value(node.value))} -}}}}"
        if isinstance(node, Assign):
            return self._assign(node)
        if isinstance(node, If):
            return self._if(node)
        if isinstance(node, Range):
            return self._range(node)
        assert isinstance(node, Leave)
        return f"{{%- {node.word} -%}}"

    def _assign(self, node: Assign) -> str:
        value = self._value(node.value)
        if not node.declares:
            held = self._variable(node.name)
            if value.kind == "message":  # it began as "" and is asked for its fields now
                self._scope_of(node.name)[node.name] = Value(held.code, value.kind)
            return f"{{%- set {held.code} = {value.code} -%}}"
        name = self._new_name(node.name)
        if node.name in self._changed:
            # A plain variable that is set inside of a loop is forgotten after its turn.
            self._scopes[-1][node.name] = Value(f"{name}.value", value.kind)
            return f"{{%- set {name} = namespace(value={value.code}) -%}}"
        self._scopes[-1][node.name] = Value(name, value.kind)
        return f"{{%- set {name} = {value.code} -%}}"

    def _if(self, node: If) -> str:
        condition = self._value(node.condition)
        if node.binds_dot:
            self._dots.append(condition)
        body = self._body(node.body)
        if node.binds_dot:
            self._dots.pop()
        otherwise = f"{{%- else -%}}{self._body(node.otherwise)}" if node.otherwise else ""
        return f"{{%- if {condition.code} -%}}{body}{otherwise}{{%- endif -%}}"

    def _range(self, node: Range) -> str:
        over = self._value(node.over)
        item = self._new_name("item")
        scope: dict[str, Value] = {}
        head, begin = f"for {item} in ({over.code}) or []", ""  # nil has nothing to go through
        element = Value(item, over.element_kind)
        if over.kind == "map":
            key = self._new_name("key")
            head = f"for {key}, {item} in (({over.code}) or {{}}).items()"
            scope[node.key] = Value(key, "text")
        elif node.key and node.key != "_":
            key = self._new_name(node.key)
            begin = f"{{%- set {key} = loop.index0 -%}}"
            scope[node.key] = Value(key, "number")
        if node.value:
            scope[node.value] = element
        self._scopes.append(scope)
        self._dots.append(element)
        body = self._body(node.body)
        self._dots.pop()
        self._scopes.pop()
        otherwise = f"{{%- else -%}}{self._body(node.otherwise)}" if node.otherwise else ""
        return f"{{%- {head} -%}}{begin}{body}{otherwise}{{%- endfor -%}}"

    def _value(self, expression: Expression) -> Value:
        if isinstance(expression, Literal):
            kind = "bool" if isinstance(expression.value, bool) else "text"
            return Value(literal(expression.value), kind)
        if isinstance(expression, Dot):
            return self._dots[-1]
        if isinstance(expression, Variable):
            return self._variable(expression.name)
        if isinstance(expression, Field):
            return field(self._value(expression.base), expression.name)
        return self._call(expression)

    def _call(self, expression: Call) -> Value:
        arguments = [self._value(one) for one in expression.arguments]
        if expression.function != "printf":
            return call(expression.function, arguments)
        pattern = expression.arguments[0] if arguments else None
        if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
            raise CannotTranslate("it uses printf with a pattern that is no constant")
        return formatted(pattern.value, arguments[1:])

    def _variable(self, name: str) -> Value:
        if not name:
            return self._root
        return self._scope_of(name)[name]

    def _scope_of(self, name: str) -> dict[str, Value]:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope
        raise MalformedTemplate(f"it uses ${name}, which it does not declare")

    def _new_name(self, name: str) -> str:
        self._num_names += 1
        return f"go_{name}_{self._num_names}"


def _changed(nodes: Sequence[Node]) -> Iterator[str]:
    """The variables that are set again after they were declared."""
    for node in nodes:
        if isinstance(node, Assign) and not node.declares:
            yield node.name
        elif isinstance(node, If | Range):
            yield from _changed([*node.body, *node.otherwise])
