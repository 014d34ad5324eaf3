"""Reads Go's template language, as far as chat templates use it."""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

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

MAX_CHARS = 100_000
MAX_DEPTH = 40
# Each takes what it can and gives none of it back: a hostile template costs one reading.
_BEGIN = re.compile(r"\{\{(-(?=\s))?\s*+(/\*)?")
_INSIDE = re.compile(r"""(?:"(?:[^"\\\n]|\\.)*+"|`[^`]*+`|(?!\s-\}\}|\}\})[^"`])*+""", re.DOTALL)
_FINISH = re.compile(r"\s*?(\s-)?\}\}")
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    | (?P<number>[-+]?[0-9]+(?:\.[0-9]+)?)
    | (?P<field>\.[A-Za-z_][A-Za-z0-9_]*)
    | (?P<variable>\$[A-Za-z0-9_]*)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>:=|[=|(),.])
    | (?P<gap>\s+)""",
    re.VERBOSE,
)
_CONSTANTS = {"true": True, "false": False, "nil": None}
_ESCAPES = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.DOTALL)
_NAMED_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
    "\\": "\\", '"': '"', "'": "'",
}  # fmt: skip


class _Token(Struct, frozen=True):
    kind: str
    text: str


_END = _Token("end", "")


def read_template(source: str) -> list[Node]:
    """The nodes of a template. Raises `CannotTranslate`, of a mistake `MalformedTemplate`."""
    if len(source) > MAX_CHARS:
        raise CannotTranslate(f"it has over {MAX_CHARS} characters")
    return _Reader(list(_pieces(source))).whole()


def _pieces(source: str) -> Iterator[str | list[_Token]]:
    """Texts and actions in turn, white space trimmed where an action asks for it."""
    at, trims = 0, False
    while (begin := _BEGIN.search(source, at)) is not None:
        text = source[at : begin.start()]
        text = text.lstrip() if trims else text
        yield text.rstrip() if begin[1] else text
        is_comment = begin[2] is not None
        end = source.find("*/", begin.end()) + 2 if is_comment else _inside_end(source, begin.end())
        finish = _FINISH.match(source, end) if end > 1 else None
        if finish is None:
            raise MalformedTemplate(f"the action {source[begin.start() :][:60]!r} does not end")
        if not is_comment:
            yield list(_tokens(source[begin.end() : end]))
        at, trims = finish.end(), finish[1] is not None
    rest = source[at:]
    yield rest.lstrip() if trims else rest


def _inside_end(source: str, start: int) -> int:
    found = _INSIDE.match(source, start)
    return found.end() if found else start


def _tokens(inside: str) -> Iterator[_Token]:
    at = 0
    while at < len(inside):
        found = _TOKEN.match(inside, at)
        if found is None or found.lastgroup is None:
            # Go has characters in single quotes, too; nothing here stands for them.
            reason = CannotTranslate if inside[at] == "'" else MalformedTemplate
            raise reason(f"{inside[at:].strip()[:40]!r} makes no sense in an action")
        yield _Token(found.lastgroup, found.group())
        at = found.end()


class _Reader:
    """Goes through the pieces once."""

    def __init__(self, pieces: Sequence[str | list[_Token]]) -> None:
        self._pieces = iter(pieces)
        self._end: list[_Token] = []  # the action that ended the nodes just read

    def whole(self) -> list[Node]:
        nodes = self._nodes(0)
        if self._end:
            raise MalformedTemplate(f"there is nothing for {self._end[0].text!r} to end")
        return nodes

    def _nodes(self, depth: int) -> list[Node]:
        """Nodes up to an `end` or `else`, which is in `_end` then, or to the last."""
        if depth > MAX_DEPTH:
            raise CannotTranslate(f"it nests deeper than {MAX_DEPTH} levels")
        nodes: list[Node] = []
        self._end = []
        for piece in self._pieces:
            if isinstance(piece, str):
                if piece:
                    nodes.append(Text(piece))
                continue
            action = _Action(piece)
            word = action.word()
            if word in ("end", "else"):
                self._end = [token for token in piece if token.kind != "gap"]
                return nodes
            nodes.append(self._node(word, action, depth))
        return nodes

    def _node(self, word: str, action: "_Action", depth: int) -> Node:
        if word in ("if", "with"):
            action.skip()
            return self._condition(word, action, depth)
        if word == "range":
            action.skip()
            names = action.range_names()
            over = action.pipeline()
            body, otherwise = self._bodies(depth)
            return Range(over, *names, body, otherwise)
        if word in ("break", "continue"):
            return Leave(word)
        if word in ("define", "template", "block"):
            raise CannotTranslate(f"it uses {{{{ {word} }}}}")
        assigned = action.assigned()
        if assigned is not None:
            return Assign(assigned[0], action.pipeline(), declares=assigned[1])
        return Output(action.pipeline())

    def _condition(self, word: str, action: "_Action", depth: int) -> If:
        condition = action.pipeline()
        body, otherwise = self._bodies(depth)
        return If(condition, body, otherwise, binds_dot=word == "with")

    def _bodies(self, depth: int) -> tuple[list[Node], list[Node]]:
        body = self._nodes(depth + 1)
        end = self._end
        if not end:
            raise MalformedTemplate("a block does not end")
        self._end = []
        if end[0].text == "end":
            return body, []
        if len(end) > 1:  # else if: an `if` that ends with the same `end`
            action = _Action(end[1:])
            word = action.word()
            if word not in ("if", "with"):
                raise MalformedTemplate(f"else {word!r} makes no sense")
            action.skip()
            return body, [self._condition(word, action, depth + 1)]
        otherwise = self._nodes(depth + 1)
        if not self._end or self._end[0].text != "end":
            raise MalformedTemplate("an {{ else }} does not end")
        self._end = []
        return body, otherwise


class _Action:
    """The tokens of one action; gaps matter only between a value and a field."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = [*tokens, _END]
        self._at = 0
        self._drop_gap()

    def word(self) -> str:
        """The first word, if it is one."""
        token = self._tokens[self._at]
        return token.text if token.kind == "word" else ""

    def skip(self) -> None:
        """Leave the next token, and the gap after it, behind."""
        self._at += 1
        self._drop_gap()

    def assigned(self) -> tuple[str, bool] | None:
        """The variable that the action sets, and whether it declares it."""
        start, name = self._at, self._tokens[self._at]
        if name.kind == "variable":
            self.skip()
            sign = self._tokens[self._at].text
            if sign in (":=", "="):
                self.skip()
                return name.text[1:], sign == ":="
        self._at = start
        return None

    def range_names(self) -> tuple[str, str]:
        """The variables of a `range`: key and value, empty where there are none."""
        start, names = self._at, list[str]()
        while self._tokens[self._at].kind == "variable":
            names.append(self._tokens[self._at].text[1:])
            self.skip()
            sign = self._tokens[self._at].text
            if sign == "," and len(names) == 1:
                self.skip()
            elif sign == ":=":
                self.skip()
                return ("", names[0]) if len(names) == 1 else (names[0], names[1])
            else:
                break
        self._at = start
        return "", ""

    def pipeline(self, depth: int = 0) -> Expression:
        """A value, and the functions that it goes through, to the end of the action."""
        value = self._command(depth, None)
        while self._tokens[self._at].text == "|":
            self.skip()
            value = self._command(depth, value)
        if depth == 0 and self._tokens[self._at] is not _END:
            raise CannotTranslate(f"{self._tokens[self._at].text!r} makes no sense in an action")
        return value

    def _command(self, depth: int, piped: Expression | None) -> Expression:
        if depth > MAX_DEPTH:
            raise CannotTranslate(f"it nests deeper than {MAX_DEPTH} levels")
        name = self.word()
        if name and name not in _CONSTANTS:
            self.skip()
            arguments: list[Expression] = []
            while self._tokens[self._at].text not in ("|", ")", ""):
                arguments.append(self._operand(depth))
            return Call(name, [*arguments, piped] if piped is not None else arguments)
        if piped is not None:
            raise CannotTranslate("a value is given to what is no function")
        return self._operand(depth)

    def _operand(self, depth: int) -> Expression:
        token = self._tokens[self._at]
        self._at += 1
        value: Expression
        if token.kind == "text":
            value = Literal(_text(token.text))
        elif token.kind == "number":
            value = Literal(float(token.text) if "." in token.text else int(token.text))
        elif token.kind == "variable":
            value = Variable(token.text[1:])
        elif token.kind == "field":
            value = Field(Dot(), token.text[1:])
        elif token.text == ".":
            value = Dot()
        elif token.kind == "word":
            # A function without arguments, where it is not the first word.
            is_constant = token.text in _CONSTANTS
            value = Literal(_CONSTANTS[token.text]) if is_constant else Call(token.text, [])
        elif token.text == "(":
            self._drop_gap()
            value = self.pipeline(depth + 1)
            if self._tokens[self._at].text != ")":
                raise MalformedTemplate("a parenthesis does not end")
            self._at += 1
        else:
            raise MalformedTemplate(f"{token.text or 'nothing'!r} is no value")
        while self._tokens[self._at].kind == "field":
            value = Field(value, self._tokens[self._at].text[1:])
            self._at += 1
        self._drop_gap()
        return value

    def _drop_gap(self) -> None:
        while self._tokens[self._at].kind == "gap":
            self._at += 1


def _text(quoted: str) -> str:
    if quoted.startswith("`"):
        return quoted[1:-1].replace("\r", "")

    def meant(found: re.Match[str]) -> str:
        code = found[1]
        if code[0] in "uUx" and len(code) > 1:
            return chr(int(code[1:], 16))
        if code.isdecimal():
            return chr(int(code, 8))
        return _NAMED_ESCAPES[code]

    try:
        return _ESCAPES.sub(meant, quoted[1:-1])
    except (ValueError, OverflowError, KeyError):
        raise MalformedTemplate(f"{quoted[:40]} has an escape that makes no sense") from None
