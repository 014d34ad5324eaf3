"""A jinja2 environment for templates that nobody vouches for.

A chat template comes out of a model file, so it may be hostile. It must not
reach Python: that is jinja2's immutable sandbox, with a short list of filters
and methods on top. And it must not use up the machine's time or memory:

- a `Meter` counts what each render spends;
- what makes much out of little in one step (`*`, `**`, `~`, `join`, `replace`,
  captured blocks) is checked before it runs, and what has no place in a chat
  template (`%` on text, `center`, `format`, `pprint` …) is not there;
- every list, tuple and dict is measured when it is built, so that shared parts
  cannot add up to something huge when it is compared, hashed or printed.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace

from engines.chat.meter import Meter, TemplateTooExpensive
from engines.chat.neighbours import neighbours_joined
from engines.chat.sandbox_syntax import GenerationBlocks, Metering, refuse_unbounded

_FILTERS = """
    abs capitalize count d default dictsort e escape first float groupby indent int items last
    length lower map max min reject rejectattr replace reverse round safe select selectattr sort
    string title trim unique upper
"""
_TEXT_METHODS = """
    capitalize count endswith find index isalnum isalpha isdigit islower isnumeric isspace istitle
    isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition
    rsplit rstrip split splitlines startswith strip swapcase title upper
"""
_METHODS: dict[type, frozenset[str]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    int: frozenset(),
    float: frozenset(),
    bytes: frozenset(),
}
_CONTAINERS: tuple[type[Any], ...] = (list, tuple, dict)
_ITERATORS: tuple[type[Any], ...] = (Iterator,)
_MAX_NUMBER = 64
_MAX_NUMBER_BITS = 1024
_MAX_INDENT = 16
_MAX_MESSAGE = 500


class ConversationRefused(Exception):
    """The template itself said, with `raise_exception`, what is wrong with the messages."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and runs one model's chat templates.

    Renders may run in several threads at once; each has a meter of its own.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # Not optimized, and `finalize` wants the context: both keep jinja2 from
        # computing constant expressions, hostile ones among them, while it compiles.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            finalize=self._printed,
            extensions=["jinja2.ext.loopcontrols", GenerationBlocks],
        )
        self._running = threading.local()
        self.concat = self._concat
        self.filters = {name: self._metered(name, self.filters[name]) for name in _FILTERS.split()}
        self.filters |= {
            "join": self._join,
            "list": self._list,
            "sum": self._sum,
            "tojson": self._tojson,
            "_concat": self._concat,
            "_held": self._held,
            "_neighbours_joined": self._neighbours_joined,
            "_stepped": self._stepped,
            "_turns": self._turns,
        }
        self.tests = {name: self._counted(test) for name, test in self.tests.items()}

    def compiled(self, source: str) -> Template:
        """Compile a template. Raises what jinja2 and Python's compiler raise."""
        tree = self.parse(source)
        refuse_unbounded(tree)
        Metering().visit(tree)
        return Template.from_code(self, self.compile(tree), dict(_GLOBALS))

    def run(
        self, template: Template, variables: Mapping[str, Any], *, meter: Meter, max_chars: int
    ) -> str:
        """Render a template of this sandbox; `max_chars` bounds the result."""
        self._running.meter = meter
        pieces: list[str] = []
        num_chars = 0
        for piece in template.root_render_func(template.new_context(dict(variables))):
            num_chars += len(piece)
            if num_chars > max_chars:
                raise TemplateTooExpensive(f"it prints more than {max_chars} characters")
            pieces.append(piece)
        return "".join(pieces)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow what chat templates use of the built-in types, and the sandbox's rules."""
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Offer no `format` at all: it pads to any width in one step."""

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call something for a template; names as in jinja2, or keywords would clash."""
        meter = __self._meter
        meter.step()
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str):
            args = tuple(list(arg) if isinstance(arg, _ITERATORS) else arg for arg in args)
            if __obj.__name__ == "replace":
                _check_replace(meter, text, *args)
            elif __obj.__name__ == "join":
                meter.make((len(text) + 1) * meter.measure(args))
        return __self._result(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Run an operator that can make much out of little, if it does not."""
        meter = self._meter
        meter.step()
        if operator == "+":
            if isinstance(left, str) and isinstance(right, str):
                meter.make(len(left) + len(right))
            elif isinstance(left, _CONTAINERS):
                meter.measure((left, right))
        elif operator == "%":
            if isinstance(left, str | bytes):
                raise SecurityError("it formats text with %")
        elif isinstance(left, int | float) and isinstance(right, int | float):
            _check_number(operator, left, right)
        else:
            _check_repeat(meter, left, right)
        return self._result(super().call_binop(context, operator, left, right))

    @property
    def _meter(self) -> Meter:
        return self._running.meter

    def _result(self, value: Any) -> Any:
        if isinstance(value, str):
            self._meter.make(len(value))
        elif isinstance(value, _CONTAINERS):
            self._held(value)
        return value

    def _held(self, value: Any) -> Any:
        """Let a structure pass that a template built, if it is not too large."""
        if isinstance(value, (str, *_CONTAINERS)):
            self._meter.measure(value)
            self._meter.make(len(value))
        return value

    def _stepped(self, value: Any) -> Any:
        """Count one thing done."""
        self._meter.step()
        return value

    def _turns(self, items: Iterable[Any]) -> Iterator[Any]:
        """Count the turns of a loop."""
        step = self._meter.step
        for item in items:
            step()
            yield item

    @pass_context
    def _printed(self, context: Context, value: Any) -> Any:
        """Let a value be printed, if it is data and not too large."""
        meter = self._meter
        meter.step()
        if isinstance(value, _CONTAINERS):
            meter.measure(value)
        elif not isinstance(value, str | int | float | Undefined | None):
            raise SecurityError(f"it prints a {type(value).__name__}")
        return value

    def _concat(self, parts: Iterable[Any]) -> str:
        meter = self._meter
        meter.step()
        parts = list(self._turns(parts))
        meter.make(meter.measure(parts))
        return "".join(map(str, parts))

    def _join(self, items: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        values = self._list(items)
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        self._meter.make(self._meter.measure(values) + len(values) * len(d))
        return d.join(map(str, values))

    def _neighbours_joined(self, messages: Iterable[Any]) -> list[Any]:
        """For templates whose writers counted on that; see engines/gguf/go_template."""
        listed = self._list(messages)
        self._meter.make(self._meter.measure(listed))
        return self._list(neighbours_joined(listed))

    def _list(self, items: Iterable[Any]) -> list[Any]:
        return self._held(list(self._turns(items)))

    def _sum(self, items: Iterable[Any], attribute: str | int | None = None, start: int = 0) -> Any:
        values = self._list(items)
        if attribute is not None:
            values = [self.getitem(value, attribute) for value in values]
        if any(isinstance(value, list | tuple) for value in [*values, start]):
            raise SecurityError("it sums lists")
        return sum(values, start)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,  # noqa: FBT001, FBT002
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,  # noqa: FBT001, FBT002
    ) -> str:
        if isinstance(indent, str) or (indent or 0) > _MAX_INDENT:
            raise SecurityError(f"it indents JSON by more than {_MAX_INDENT}")
        size = self._meter.size(value)
        # Indented, each item costs as much as it is deep, in text and in time.
        indented = 0 if indent is None else size.indents * max(indent, 1)
        self._meter.make(size.chars + size.items + indented)
        return self._result(
            json.dumps(
                value,
                ensure_ascii=ensure_ascii,
                indent=indent,
                separators=separators,
                sort_keys=sort_keys,
            )
        )

    def _metered(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a filter of jinja2's so that it is counted and cannot make too much."""
        num_passed = 1 if hasattr(plain, "jinja_pass_arg") else 0

        def metered(*args: Any, **kwargs: Any) -> Any:
            meter = self._meter
            meter.step()
            value = args[num_passed]
            if isinstance(value, _ITERATORS):
                value = list(self._turns(value))
            if not isinstance(value, str):
                meter.measure(value)
            rest = args[num_passed + 1 :]
            if name not in ("default", "d") and any(map(_is_large, (*rest, *kwargs.values()))):
                raise SecurityError(f"it gives {name!r} a number over {_MAX_NUMBER}")
            if name == "replace":
                _check_replace(meter, str(value), *rest, **kwargs)
            elif name == "indent":
                meter.make((str(value).count("\n") + 1) * _MAX_NUMBER)
            result = plain(*args[:num_passed], value, *rest, **kwargs)
            return self._result(result)

        # jinja2 reads from this attribute what to pass besides the arguments.
        if num_passed:
            metered.jinja_pass_arg = plain.jinja_pass_arg  # pyright: ignore[reportFunctionMemberAccess]
        return metered

    def _counted(self, test: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._meter.step()
            return test(*args, **kwargs)

        if hasattr(test, "jinja_pass_arg"):
            counted.jinja_pass_arg = test.jinja_pass_arg  # pyright: ignore
        return counted


def _check_number(operator: str, left: float, right: float) -> None:
    if isinstance(left, float) or isinstance(right, float):
        return
    bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
    if bits > _MAX_NUMBER_BITS:
        raise SecurityError(f"it computes a number of {bits} bits")


def _check_repeat(meter: Meter, left: Any, right: Any) -> None:
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, (str, bytes, *_CONTAINERS)) and isinstance(right, int):
        meter.make(meter.measure(left) * max(right, 0))


def _check_replace(
    meter: Meter, text: str, old: Any = "", new: Any = "", *_: Any, **__: Any
) -> None:
    # The count is ignored: what it leaves out would only make the text shorter.
    meter.make(len(text) + text.count(str(old)) * len(str(new)))


def _is_large(value: Any) -> bool:
    return isinstance(value, int) and abs(value) > _MAX_NUMBER


def _raise_exception(message: object) -> NoReturn:
    raise ConversationRefused(str(message)[:_MAX_MESSAGE])


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern[:_MAX_MESSAGE])


_GLOBALS: dict[str, Any] = {
    "dict": dict,
    "namespace": Namespace,
    "range": safe_range,
    "raise_exception": _raise_exception,
    "strftime_now": _strftime_now,
}
