"""What policy files may say: one frozen Struct for each table.

docs/policy.md says what each field means, and a test checks that it names every
one. Loading is in load.py, rules that span tables in check.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from engines.errors import (
    ContextTooLong,
    EngineError,
    ModelNotFound,
    Overloaded,
    RequestRefused,
    Unavailable,
    Unsupported,
)
from gateway.endpoints import deciding_pattern

Table = TypeVar("Table", bound=Struct)

FALLBACK_CODES = tuple(
    sorted(
        error.code
        for error in (
            ContextTooLong,
            EngineError,
            ModelNotFound,
            Overloaded,
            RequestRefused,
            Unavailable,
            Unsupported,
        )
    )
)

# An engine counts in 32 bits; a limit above this is a slip of the finger.
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Budget = Annotated[int, Meta(ge=1, le=10**15)]
# In memory these are millionths, which must stay under 2^53.
Money = Annotated[float, Meta(gt=0, le=1e9)]
Price = Annotated[float, Meta(ge=0, le=1e6)]
LimitScope = Literal["key", "team", "model", "endpoint"]
Weight = Annotated[float, Meta(ge=0, le=1e9)]
Text = Annotated[str, Meta(min_length=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class SamplingDefaults(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request that does not say gets; a request's own value always wins."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    max_tokens: Count | None = None


class CanaryPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which calls a target is for: those of a team, a key or a header, or a share of all."""

    teams: Sequence[Text] = ()  # tables of teams.toml
    keys: Sequence[Text] = ()  # globs over the public ids of API keys
    headers: Mapping[str, Text] = {}  # name -> glob over its value
    percent: Percent = 100.0  # of the calls that are meant, how many

    @property
    def is_for_some(self) -> bool:
        """Does it name anybody? If not, it is for a share of everybody's calls."""
        return bool(self.teams or self.keys or self.headers)


class TargetPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine that can serve a model, and how often it is chosen."""

    engine: Text  # a table of engines.toml
    model: Text | None = None  # the engine's own name; the public name when left out
    weight: Weight = 1.0
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0  # lower goes first
    canary: CanaryPolicy | None = None
    drain: bool = False  # true: no new calls


class FallbackPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine to try after the chosen target failed in one of the ways in `on`."""

    engine: Text
    model: Text | None = None
    on: Annotated[Sequence[str], Meta(min_length=1)] = ("overloaded", "unavailable")
    drain: bool = False


class RetryPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often to ask again, how long to wait before that, and how much extra load it may be."""

    times: Annotated[int, Meta(ge=0, le=10)] = 0
    wait_seconds: Seconds = 0.25  # before the first retry; doubles from one to the next
    max_wait_seconds: Seconds = 10.0  # a Retry-After beyond it is not waited for
    budget_percent: Annotated[float, Meta(ge=0, le=20)] = 20.0

    def __post_init__(self) -> None:
        if self.max_wait_seconds < self.wait_seconds:
            raise ValueError(
                f"max_wait_seconds ({self.max_wait_seconds:g}) is shorter than wait_seconds "
                f"({self.wait_seconds:g})"
            )


class BreakerPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a failing target is left alone, and for how long."""

    failures: Annotated[int, Meta(ge=0, le=10_000)] = 5  # in a row; 0: it never opens
    open_seconds: Seconds = 5.0  # until one call may probe it; doubles with each failed probe
    max_open_seconds: Seconds = 60.0

    def __post_init__(self) -> None:
        if self.max_open_seconds < self.open_seconds:
            raise ValueError(
                f"max_open_seconds ({self.max_open_seconds:g}) is shorter than open_seconds "
                f"({self.open_seconds:g})"
            )


class HedgePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a second target is asked the same while the first still thinks."""

    after_seconds: Seconds


class MirrorPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A target that gets a copy of calls and whose answers are thrown away."""

    engine: Text
    model: Text | None = None
    percent: Percent = 100.0
    max_concurrent: Count = 4  # a copy beyond them is dropped
    timeout_seconds: Seconds = 300.0  # after which a copy is ended


class ModelPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public model name and what stands behind it. `["*"]` is any name not listed."""

    targets: Annotated[Sequence[TargetPolicy], Meta(min_length=1)]
    fallbacks: Sequence[FallbackPolicy] = ()
    description: str = ""
    aliases: Sequence[Text] = ()
    defaults: SamplingDefaults = SamplingDefaults()
    choice: Literal["weight", "least_busy", "latency"] = "weight"
    sticky: Literal["key", "session", "prefix"] | None = None  # what keeps its target
    session_header: Text = "x-session-id"
    prefix_characters: Count = 1024
    first_output_timeout_seconds: Seconds | None = None
    retry: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    hedge: HedgePolicy | None = None
    mirror: MirrorPolicy | None = None
    name: str = ""  # filled in by the loader: the table's name


class TeamPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one team may do."""

    models: Sequence[Text] = ()  # globs; `!glob` denies and wins
    endpoints: Sequence[Text] = ()  # globs over endpoint names
    networks: Annotated[Sequence[Text], Meta(min_length=1)] | None = None  # None: any address
    limits: Text | None = None  # a table of limits.toml
    weight: Annotated[float, Meta(gt=0, le=1e9)] = 1.0  # its share when teams compete
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0  # lower goes first
    show_targets: bool = False  # true: answers say which targets were tried
    name: str = ""  # filled in by the loader


class LimitPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much. What is left out is not limited.

    A table that a team names in its `limits` is that team's. A table with `per`
    applies by itself, to every call that fits `teams`, `models` and `endpoints`.
    """

    per: Sequence[LimitScope] | None = None  # what has an allowance of its own; []: all share one
    teams: Annotated[Sequence[Text], Meta(min_length=1)] = ("*",)  # globs
    models: Annotated[Sequence[Text], Meta(min_length=1)] = ("*",)
    endpoints: Annotated[Sequence[Text], Meta(min_length=1)] = ("*",)
    requests_per_minute: Count | None = None
    input_tokens_per_minute: Count | None = None
    output_tokens_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    burst_seconds: Annotated[float, Meta(gt=0, le=3600)] = 60.0  # how much may be used at once
    concurrent_calls: Count | None = None
    tokens_per_day: Budget | None = None
    tokens_per_month: Budget | None = None
    cost_per_day: Money | None = None
    cost_per_month: Money | None = None
    max_output_tokens: Count | None = None
    wait_seconds: Annotated[float, Meta(ge=0, le=120)] = 0.0  # for room, instead of a 429
    clamp_output: bool = False  # rather a shorter answer than none
    shadow: bool = False  # counted and logged, never a reason to refuse
    name: str = ""  # filled in by the loader


class PricePolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a million tokens of a model cost, in whatever unit the budgets are in."""

    input: Price
    output: Price = 0.0
    cached: Price | None = None  # input found in the prompt cache; None: as any input
    name: str = ""  # filled in by the loader: a model, or a glob over models


class EnginePolicy(Struct, frozen=True, kw_only=True):
    """A named engine: its kind, and its kind's own configuration, already converted."""

    name: str
    kind: str
    config: Any


class Policy(Struct, frozen=True, kw_only=True):
    """One policy directory, whole. Calls in flight keep the one that they started with."""

    directory: Path
    digest: str  # SHA-256 of the files' names and bytes, in name order
    plugins: Sequence[str]
    tables: Mapping[str, Any]  # plugin name -> its own table of gateway.toml, converted
    engines: Mapping[str, EnginePolicy]
    models: Mapping[str, ModelPolicy]
    teams: Mapping[str, TeamPolicy]
    limits: Mapping[str, LimitPolicy]
    aliases: Mapping[str, str]  # alias -> model
    prices: Mapping[str, PricePolicy] = {}

    def resolve(self, name: str) -> ModelPolicy | None:
        """The model that `name` asks for: by name, by alias, else by the longest glob.

        A glob's answer carries the name that was asked for, so that a team's
        `models` decide about that name and not about `*`.
        """
        if (model := self.models.get(self.aliases.get(name, name))) is not None:
            return model if "*" not in model.name else None
        globs = [pattern for pattern in self.models if "*" in pattern]
        fitting = [pattern for pattern in globs if deciding_pattern(name, [pattern])]
        if not fitting:
            return None
        return msgspec.structs.replace(self.models[max(fitting, key=len)], name=name)

    def price_of(self, model: str) -> PricePolicy | None:
        """The price of a model: by name, else by the longest glob; None if it has none."""
        if (price := self.prices.get(model)) is not None:
            return price
        fitting = [name for name in self.prices if deciding_pattern(model, [name])]
        return self.prices[max(fitting, key=len)] if fitting else None

    def table(self, plugin: str, kind: type[Table]) -> Table:
        """The table that belongs to `plugin`, or its defaults when the file has none."""
        found = self.tables.get(plugin)
        return found if isinstance(found, kind) else kind()
