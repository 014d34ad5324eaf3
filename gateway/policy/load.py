"""Turns a policy directory into a `Policy`, or into every reason why it is none.

Files are read in files.py and converted table by table in convert.py; rules that
span tables are in check.py. Which plugins and engine kinds exist is told by the
caller: this package imports neither.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, cast

from msgspec import Struct
from msgspec.structs import fields

from gateway.policy.check import errors_of
from gateway.policy.convert import Converter
from gateway.policy.files import Files, read_files
from gateway.policy.problems import (
    Place,
    PolicyInvalid,
    quoted,
    shown,
    there_are,
    way_out,
)
from gateway.policy.schema import (
    EnginePolicy,
    LimitPolicy,
    ModelPolicy,
    Policy,
    PricePolicy,
    TeamPolicy,
)

StructT = TypeVar("StructT", bound=Struct)
EngineDefaults = Callable[[str, Mapping[str, object]], Mapping[str, object]]

_MAX_NAME = 200  # characters


def load_policy(
    directory: Path,
    *,
    plugin_tables: Mapping[str, type[Struct] | None],
    engine_configs: Mapping[str, type[Struct]],
    engine_defaults: EngineDefaults | None = None,
    hooks_of: Mapping[str, Collection[str]] | None = None,
) -> Policy:
    """Read and check one directory. Raises `PolicyInvalid` with every problem in it.

    `plugin_tables` has every installed plugin and the Struct of its own table of
    gateway.toml, None if it takes no table. `engine_configs` has the kinds that
    listed plugins register; `engine_defaults` is asked for keys that a table of a kind
    leaves out. `hooks_of` (plugin -> the hooks it implements) makes more
    checks possible.
    """
    files = read_files(directory)
    converter = Converter(directory)
    plugins = _plugins(files, converter)
    models = _tables(files, "models.toml", ModelPolicy, converter)
    # Without its plugins, a policy's engine kinds are not wrong, only not known yet.
    kinds_known = bool(plugins) and all(plugin in plugin_tables for plugin in plugins)
    policy = Policy(
        directory=directory,
        digest=files.digest,
        plugins=plugins,
        tables=_plugin_tables(files, plugins, plugin_tables, converter),
        engines=_engines(
            files, engine_configs, engine_defaults, converter, kinds_known=kinds_known
        ),
        models=models,
        teams=_tables(files, "teams.toml", TeamPolicy, converter),
        limits=_tables(files, "limits.toml", LimitPolicy, converter),
        aliases={alias: model.name for model in models.values() for alias in model.aliases},
        prices=_tables(files, "prices.toml", PricePolicy, converter),
    )
    errors = errors_of(
        policy,
        files,
        installed=plugin_tables,
        hooks_of=hooks_of,
    )
    problems = [*files.problems, *converter.problems, *errors]
    if problems:
        raise PolicyInvalid(problems)
    return policy


def listed_plugins(directory: Path) -> Sequence[str]:
    """The plugins that gateway.toml lists, without any check; nothing if it cannot be read.

    For finding out which engine kinds there are before the directory is loaded.
    """
    try:
        files = read_files(directory)
    except PolicyInvalid:
        return ()
    return _plugins(files, Converter(directory))


def _plugins(files: Files, converter: Converter) -> tuple[str, ...]:
    tree = files.trees["gateway.toml"]
    place = Place("gateway.toml", None, "plugins")
    if "plugins" not in tree:
        if "gateway.toml" not in files.missing | files.broken:
            converter.report(
                Place("gateway.toml"), '"plugins" is missing: it lists the plugins, in order'
            )
        return ()
    if not isinstance(tree["plugins"], list):
        converter.report(place, f"{shown(tree['plugins'])} is not a list of plugin names")
        return ()
    plugins: list[str] = []
    for index, name in enumerate(cast(list[object], tree["plugins"])):
        if isinstance(name, str):
            plugins.append(name)
        else:
            converter.report(place.item(index), f"{shown(name)} is not the name of a plugin")
    return tuple(plugins)


def _plugin_tables(
    files: Files,
    plugins: Sequence[str],
    kinds: Mapping[str, type[Struct] | None],
    converter: Converter,
) -> Mapping[str, Struct]:
    """The tables of gateway.toml, each as its plugin reads it."""
    tables: dict[str, Struct] = {}
    for plugin in plugins:
        kind = kinds.get(plugin)
        if kind is None or plugin in files.trees["gateway.toml"]:
            continue
        needed = [quoted(field.encode_name) for field in fields(kind) if field.required]
        if needed:
            converter.report(
                Place("gateway.toml", plugin),
                f"this table is missing: the plugin needs {', '.join(needed)}",
            )
    for name, tree in files.trees["gateway.toml"].items():
        if name == "plugins":
            continue
        if name not in kinds:
            known = ["plugins", *kinds]
            converter.report(
                Place("gateway.toml"),
                f"{quoted(name)} is neither plugins nor an installed plugin's table"
                f"{way_out(name, known)}",
            )
            continue
        kind = kinds[name]
        if kind is None:
            converter.report(Place("gateway.toml", name), "this plugin takes no table: remove it")
            continue
        table = converter.table(tree, kind, Place("gateway.toml", name), {})
        if table is not None:
            tables[name] = table
    return tables


def _engines(
    files: Files,
    configs: Mapping[str, type[Struct]],
    defaults: EngineDefaults | None,
    converter: Converter,
    *,
    kinds_known: bool,
) -> Mapping[str, EnginePolicy]:
    engines: dict[str, EnginePolicy] = {}
    for name, tree in _named(files, "engines.toml", converter).items():
        place = Place("engines.toml", name)
        kind = tree.get("kind")
        if not isinstance(kind, str):
            is_what = "is missing" if kind is None else f"is {shown(kind)}"
            converter.report(place, f'"kind" {is_what}: {_kinds_in_words(configs)}')
            if kinds_known and configs:
                _report_keys_of_no_kind(tree, configs, place, converter)
            continue
        if kind not in configs:
            if kinds_known:
                converter.report(place.key("kind"), _unknown_kind(kind, configs))
            continue
        rest = {key: value for key, value in tree.items() if key != "kind"}
        if defaults is not None:
            rest = {**defaults(kind, rest), **rest}
        config = converter.table(rest, configs[kind], place, {})
        if config is not None:
            engines[name] = EnginePolicy(name=name, kind=kind, config=config)
    return engines


def _report_keys_of_no_kind(
    tree: Mapping[str, object],
    configs: Mapping[str, type[Struct]],
    place: Place,
    converter: Converter,
) -> None:
    """Report what is a key of no engine: one of them may be what `kind` was misspelt as."""
    known = {entry.encode_name for config in configs.values() for entry in fields(config)}
    for key, value in tree.items():
        if key != "kind" and key not in known:
            converter.unknown_key(key, value, place, ["kind", *known])


def _unknown_kind(kind: str, configs: Mapping[str, type[Struct]]) -> str:
    if not configs:
        return f"{quoted(kind)}: no listed plugin registers an engine kind; list gguf_engine"
    return (
        f"{quoted(kind)} is not a kind of engine that a listed plugin registers"
        f"{way_out(kind, configs)}"
    )


def _kinds_in_words(configs: Mapping[str, type[Struct]]) -> str:
    return f"it says which implementation the engine is ({there_are(configs)})"


def _tables(
    files: Files, file: str, kind: type[StructT], converter: Converter
) -> Mapping[str, StructT]:
    """Every table of a file; those that cannot be converted are reported and left out."""
    tables: dict[str, StructT] = {}
    for name, tree in _named(files, file, converter).items():
        table = converter.table(tree, kind, Place(file, name), {"name": name})
        if table is not None:
            tables[name] = table
    return tables


def _named(files: Files, file: str, converter: Converter) -> Mapping[str, Mapping[str, object]]:
    """The top-level tables of a file whose names can be names."""
    named: dict[str, Mapping[str, object]] = {}
    for name, tree in files.trees[file].items():
        noun = file.removesuffix("s.toml")
        if not isinstance(tree, dict):
            converter.report(
                Place(file, None, Place(file).key(name).path),
                f"{shown(tree)} is not a table: put it under the {noun} it belongs to, "
                f"such as [my-{noun}]",
            )
        elif problem := _name_problem(name, file):
            converter.report(Place(file, name), problem)
        else:
            named[name] = cast(Mapping[str, object], tree)
    return named


def _name_problem(name: str, file: str) -> str:
    """Why `name` cannot be a name, or nothing. Names end up in logs, globs and URLs."""
    if not name or name != name.strip() or not name.isprintable():
        return "a name has characters that can be seen, and no space at its ends"
    if len(name) > _MAX_NAME:
        return f"a name has at most {_MAX_NAME} characters, this one has {len(name)}"
    if name.startswith("!"):
        return "a name does not start with !, which means not in the lists of teams.toml"
    if "*" in name and file not in ("models.toml", "prices.toml"):
        return "only a model may stand for many names with *"
    return ""
