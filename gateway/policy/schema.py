"""What policy files may say: one frozen Struct for each table.

The field docs here are the reference that docs/policy.md is checked against.
Loading is in load.py, rules that span files in check.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from gateway.endpoints import deciding_pattern

Table = TypeVar("Table", bound=Struct)


class SamplingDefaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request that does not say gets; a request's own value always wins."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None


class TargetPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine that can serve a model, and how often it is chosen."""

    engine: str  # a table of engines.toml
    model: str | None = None  # the engine's own name; the public name when left out
    weight: float = 1.0
    on: Sequence[str] = ()  # fallbacks only: error codes after which this one is tried


class ModelPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public model name and what stands behind it. `["*"]` is any name not listed."""

    targets: Sequence[TargetPolicy]
    fallbacks: Sequence[TargetPolicy] = ()
    description: str = ""
    aliases: Sequence[str] = ()
    defaults: SamplingDefaults = SamplingDefaults()
    sticky: str | None = None  # "key": one key keeps one target
    name: str = ""  # filled in by the loader: the table's name


class TeamPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one team may do."""

    models: Sequence[str] = ()  # globs; `!glob` denies and wins
    endpoints: Sequence[str] = ()  # globs over endpoint names
    limits: str | None = None  # a table of limits.toml
    weight: float = 1.0  # its share of an engine when teams compete
    priority: int = 0  # lower goes first
    name: str = ""  # filled in by the loader


class LimitPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much. What is left out is not limited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_calls: int | None = None
    max_output_tokens: int | None = None
    name: str = ""  # filled in by the loader


class EnginePolicy(Struct, frozen=True, kw_only=True):
    """A named engine: its kind, and its kind's own configuration, already converted."""

    name: str
    kind: str
    config: Any


class Policy(Struct, frozen=True, kw_only=True):
    """One policy directory, whole. Calls in flight keep the one that they started with."""

    directory: Path
    digest: str  # SHA-256 of the files' bytes, in name order
    plugins: Sequence[str]
    tables: Mapping[str, Any]  # plugin name -> its own table of gateway.toml, converted
    engines: Mapping[str, EnginePolicy]
    models: Mapping[str, ModelPolicy]
    teams: Mapping[str, TeamPolicy]
    limits: Mapping[str, LimitPolicy]
    aliases: Mapping[str, str]  # alias -> model

    def resolve(self, name: str) -> ModelPolicy | None:
        """The model that `name` asks for: by name, by alias, else by the longest glob."""
        if (model := self.models.get(self.aliases.get(name, name))) is not None:
            return model if "*" not in model.name else None
        globs = [pattern for pattern in self.models if "*" in pattern]
        fitting = [pattern for pattern in globs if deciding_pattern(name, [pattern])]
        if not fitting:
            return None
        return msgspec.structs.replace(self.models[max(fitting, key=len)], name=name)

    def table(self, plugin: str, kind: type[Table]) -> Table:
        """The table that belongs to `plugin`, or its defaults when the file has none."""
        found = self.tables.get(plugin)
        return found if isinstance(found, kind) else kind()
