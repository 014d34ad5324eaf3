"""Turns parsed TOML into Structs, and says everything that is wrong with it.

msgspec stops at the first error and its error paths hide mapping keys. So the
walk over tables and lists is here, msgspec converts only the leaves, and each
problem knows its place. What comes out has tuples for lists, so it cannot change.
"""

import collections.abc
import math
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import Struct, inspect

from gateway.policy.problems import Place, bare, header, quoted, shown, way_out
from gateway.policy.secrets import HOW_TO_WRITE, Secret

StructT = TypeVar("StructT", bound=Struct)


class _Bad:
    """Stands for a value whose problem has been noted."""


_BAD = _Bad()


class Converter:
    """Converts the tables of one policy directory; `problems` grows as it goes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.problems: list[str] = []

    def report(self, place: Place, statement: str) -> None:
        """Note a problem."""
        self.problems.append(place.problem(statement))

    def table(
        self, tree: object, kind: type[StructT], place: Place, given: Mapping[str, object]
    ) -> StructT | None:
        """The table at `place` as a `kind`, or None after reporting every problem in it.

        `given` are fields that the loader fills in; a file may not set them.
        """
        if not isinstance(tree, dict):
            self.report(place, f"{shown(tree)} is not a table")
            return None
        table = cast(dict[str, object], tree)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        allowed = [name for name, field in fields.items() if field.name not in given]
        whole = True
        values: dict[str, object] = dict(given)
        for key, value in table.items():
            if key not in allowed:
                self.unknown_key(key, value, place, allowed)
                whole = False
                continue
            converted = self._value(value, fields[key].type, place.key(key))
            if isinstance(converted, _Bad):
                whole = False
            else:
                values[fields[key].name] = converted
        for key in allowed:
            if fields[key].required and key not in table:
                self.report(place, f"{quoted(key)} is missing: it is {expected(fields[key].type)}")
                whole = False
        return self._built(kind, values, place) if whole else None

    def unknown_key(self, key: str, value: object, place: Place, allowed: Sequence[str]) -> None:
        """Report a key of the table at `place` that is none of `allowed`."""
        hint = way_out(key, allowed)
        if isinstance(value, dict) and place.table is not None and not place.path:
            # TOML reads [qwen2.5] as table "5" of table "qwen2".
            hint += f"; a name with a dot is written in quotes: {header(f'{place.table}.{key}')}"
        self.report(place, f"unknown key {quoted(key)}{hint}")

    def _built(
        self, kind: type[StructT], values: Mapping[str, object], place: Place
    ) -> StructT | None:
        try:
            return kind(**values)
        except (TypeError, ValueError) as error:
            self.report(place, str(error))
            return None

    def _value(self, value: object, kind: Any, place: Place) -> object:
        """`value` as a `kind`, or `_BAD` after reporting why not."""
        plain = _without_none(kind)
        if plain is Secret:
            return self._secret(value, place)
        if isinstance(value, float) and not math.isfinite(value):
            self.report(place, f"{value} is not a number that anything can be set to")
            return _BAD
        if _is_struct(plain):
            found = self.table(value, plain, place, {})
            return _BAD if found is None else found
        item_kind, gather = _list_parts(plain)
        if gather is not None and isinstance(value, list):
            return self._list(cast(list[object], value), plain, item_kind, gather, place)
        if get_origin(plain) in (collections.abc.Mapping, dict) and isinstance(value, dict):
            item_kind = get_args(plain)[1]
            return self._mapping(cast(dict[str, object], value), item_kind, place)
        try:
            return msgspec.convert(value, type=kind, dec_hook=_path)
        except (msgspec.ValidationError, OverflowError, ValueError, TypeError):
            hint = _hint(value, plain, place)
            self.report(place, f"{shown(value)} is not {expected(kind)}{hint}")
            return _BAD

    def _list(
        self,
        items: list[object],
        kind: Any,
        item_kind: Any,
        gather: Callable[[list[object]], object],
        place: Place,
    ) -> object:
        bounds = _bounds_of_list(kind)
        if len(items) < bounds[0] or (bounds[1] is not None and len(items) > bounds[1]):
            self.report(place, f"{shown(items)} is not {expected(kind)}")
            return _BAD
        converted = [
            self._value(item, item_kind, place.item(index)) for index, item in enumerate(items)
        ]
        if any(isinstance(item, _Bad) for item in converted):
            return _BAD
        return gather(converted)

    def _mapping(self, table: dict[str, object], kind: Any, place: Place) -> object:
        """A table whose keys are free and whose values are all of one type."""
        converted = {key: self._value(value, kind, place.key(key)) for key, value in table.items()}
        return _BAD if any(isinstance(item, _Bad) for item in converted.values()) else converted

    def _secret(self, value: object, place: Place) -> object:
        """A reference, or `_BAD`. Never shows what stands there: it may be a secret."""
        if not isinstance(value, dict):
            self.report(
                place,
                f"a secret is never written in a policy; write where it is kept: {HOW_TO_WRITE}",
            )
            return _BAD
        found = self.table(cast(object, value), Secret, place, {})
        if found is None:
            return _BAD
        if found.file is not None:
            return Secret(file=str(self._directory / Path(found.file).expanduser()))
        return found


def expected(kind: Any) -> str:
    """What a value of this type is, in words: `a whole number of at least 1`."""
    if _without_none(kind) is Secret:
        return f"a reference to a secret: {HOW_TO_WRITE}"
    return _in_words(inspect.type_info(kind))


def _in_words(info: inspect.Type) -> str:
    if isinstance(info, inspect.Metadata):
        return _in_words(info.type)
    if isinstance(info, inspect.UnionType):
        options = [option for option in info.types if not isinstance(option, inspect.NoneType)]
        return " or ".join(_in_words(option) for option in options)
    if isinstance(info, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(info, inspect.IntType) else "a number"
        return noun + _range_in_words(info)
    if isinstance(info, inspect.LiteralType | inspect.EnumType):
        values = info.values if isinstance(info, inspect.LiteralType) else info.cls
        words = [shown(getattr(value, "value", value)) for value in values]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    if isinstance(info, inspect.StrType):
        return "text that is not empty" if info.min_length else "text"
    if isinstance(info, inspect.ListType | inspect.VarTupleType | inspect.SetType):
        return "a list with something in it" if info.min_length else "a list"
    return _NOUNS.get(type(info), "what it should be")


_NOUNS: Mapping[type[inspect.Type], str] = {
    inspect.BoolType: "true or false",
    inspect.DictType: "a table",
    inspect.StructType: "a table",
    inspect.CustomType: "a path",
    inspect.DateType: "a date",
    inspect.DateTimeType: "a date and time",
}


def _range_in_words(info: inspect.IntType | inspect.FloatType) -> str:
    """` of at least 1`, ` from 0 to 2`, ` over 0 and at most 1`."""
    low, above, high = info.ge, info.gt, info.le
    upper = None if high is None or high >= 1e9 else f"{high:g}"
    if low is not None:
        return f" from {low:g} to {upper}" if upper else f" of at least {low:g}"
    if above is not None:
        return f" over {above:g}" + (f" and at most {upper}" if upper else "")
    return f" of at most {upper}" if upper else ""


def _hint(value: object, kind: Any, place: Place) -> str:
    """The way out for values that are nearly right."""
    if _list_parts(kind)[1] is not None and isinstance(value, dict):
        return f" (write [[{bare(place.table or '')}.{place.path}]])"
    if _list_parts(kind)[1] is not None:
        return f" (write [{shown(value)}])"
    info = inspect.type_info(kind)
    if isinstance(info, inspect.LiteralType) and isinstance(value, str):
        return way_out(value, [str(option) for option in info.values])
    if isinstance(info, inspect.EnumType) and isinstance(value, str):
        return way_out(value, [str(option.value) for option in info.cls])
    if isinstance(value, str) and _reads_as_one(value, kind):
        return " (write it without quotes)"
    return ""


def _reads_as_one(text: str, kind: Any) -> bool:
    try:
        msgspec.convert(text, type=kind, strict=False)
    except (msgspec.ValidationError, OverflowError, ValueError, TypeError):
        return False
    return True


def _without_none(kind: Any) -> Any:
    """`X` of `X | None`; any other type as it is."""
    if get_origin(kind) in (Union, types.UnionType):
        options = [option for option in get_args(kind) if option is not types.NoneType]
        if len(options) == 1:
            return options[0]
    return kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _list_parts(kind: Any) -> tuple[Any, Callable[[list[object]], object] | None]:
    """The type of a list's items and what to gather them in; (None, None) for no list."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (collections.abc.Sequence, list) and arguments:
        return arguments[0], cast(Callable[[list[object]], object], tuple)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0], cast(Callable[[list[object]], object], tuple)
    if origin in (frozenset, set, collections.abc.Set) and arguments:
        return arguments[0], cast(Callable[[list[object]], object], frozenset)
    return None, None


def _bounds_of_list(kind: Any) -> tuple[int, int | None]:
    info = inspect.type_info(kind)
    if isinstance(info, inspect.ListType | inspect.VarTupleType | inspect.SetType):
        return info.min_length or 0, info.max_length
    return 0, None


def _path(kind: type, value: object) -> object:
    """Let an engine's configuration hold paths; `~` is the home directory."""
    if kind is Path and isinstance(value, str) and "\0" not in value:
        return Path(value).expanduser()
    raise TypeError(f"cannot read a {kind.__name__}")
