"""Policy directories to load in tests, and plugins and engine kinds to load them against."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.policy import Policy, PolicyInvalid, Secret, load_policy


class TeamTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    team: str | None = None


class QuotaTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    per_day: int
    currency: str = "tokens"


class EngineTable(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keep_alive_seconds: Annotated[float, Meta(ge=0)] = 300
    precision: Literal["half", "full"] = "half"
    api_key: Secret | None = None
    weights: Path | None = None
    layers: Mapping[str, int] = {}

    def __post_init__(self) -> None:
        if self.keep_alive_seconds == 13:
            raise ValueError("keep_alive_seconds may not be 13 today")


PLUGIN_TABLES: Mapping[str, type[Struct] | None] = {
    "access_log": None,
    "anonymous": TeamTable,
    "allow_lists": None,
    "defaults": None,
    "routing": None,
    "gguf_engine": None,
    "quota": QuotaTable,
}

HOOKS_OF = {
    "access_log": {"observe"},
    "anonymous": {"identify"},
    "allow_lists": {"authorize"},
    "defaults": {"prepare"},
    "routing": {"route"},
    "gguf_engine": {"register_engines"},
}

GATEWAY = 'plugins = ["anonymous", "allow_lists", "routing", "gguf_engine"]\n'
ENGINES = '[gpu0]\nkind = "gguf"\n[gpu1]\nkind = "gguf"\n'
MODELS = '[chat-small]\naliases = ["gpt-4o-mini"]\n[[chat-small.targets]]\nengine = "gpu0"\n'
TEAMS = '[search]\nmodels = ["chat-small"]\nendpoints = ["openai.*"]\nlimits = "standard"\n'
LIMITS = "[standard]\nrequests_per_minute = 600\n"

GOOD: Mapping[str, str] = {
    "gateway": GATEWAY,
    "engines": ENGINES,
    "models": MODELS,
    "teams": TEAMS,
    "limits": LIMITS,
}


def write(directory: Path, **files: str | None) -> Path:
    """Write a good directory with some files replaced; None leaves a file out."""
    directory.mkdir(exist_ok=True)
    for name, content in {**GOOD, **files}.items():
        if content is not None:
            (directory / f"{name}.toml").write_text(content)
    return directory


def load(directory: Path) -> Policy:
    return load_policy(
        directory,
        plugin_tables=PLUGIN_TABLES,
        engine_configs={"gguf": EngineTable},
        hooks_of=HOOKS_OF,
    )


def problems_of(directory: Path) -> list[str]:
    """Every problem of a directory, with its path taken out of them; none if it loads."""
    try:
        load(directory)
    except PolicyInvalid as error:
        return [problem.replace(str(directory), "DIR") for problem in error.problems]
    return []
