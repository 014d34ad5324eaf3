"""Says in the log, once, what each of Ollama's variables in the environment does here."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from gateway.ollama_variables import (
    OF_THE_COMMAND_LINE,
    TWIN_SETTINGS,
    WITHOUT_TWIN,
    twin_settings,
)

if TYPE_CHECKING:
    from gateway.gateway import Gateway
    from gateway.settings import Settings

log = structlog.get_logger()


def log_ollama_variables(
    settings: "Settings", gateway: "Gateway", environ: Mapping[str, str] = os.environ
) -> None:
    """One line for each variable that is set: taken, outranked, or without a twin."""
    ours = _settings_in(settings, environ) | _keys_in(gateway)
    for variable in sorted(name for name in environ if name.startswith("OLLAMA_")):
        if not environ[variable] or variable in OF_THE_COMMAND_LINE:
            continue
        if variable in ours:
            taken, what = ours[variable]
            event = "ollama_variable_taken" if taken else "ollama_variable_outranked"
            log.info(event, variable=variable, twin=what)
        else:
            log.warning("ollama_variable_ignored", variable=variable, reason=_why_not(variable))


def _settings_in(settings: "Settings", environ: Mapping[str, str]) -> dict[str, tuple[bool, str]]:
    """Variables with a twin among the settings: was it taken, and which is it."""
    found: dict[str, tuple[bool, str]] = {}
    for field, (variable, value) in twin_settings(environ, ()).items():
        taken = getattr(settings, field) == value and found.get(variable, (True,))[0]
        twins = " and ".join(f"PENSTOCK_{name.upper()}" for name in TWIN_SETTINGS[variable])
        found[variable] = (taken, twins)
    return found


def _keys_in(gateway: "Gateway") -> dict[str, tuple[bool, str]]:
    """Variables with a twin among the keys of engines' tables."""
    found: dict[str, tuple[bool, str]] = {}
    for engine in gateway.policy.engines.values():
        for key, (variable, value) in gateway.registry.defaults(engine.kind, {}).items():
            taken = getattr(engine.config, key) == value
            was_taken, twins = found.get(variable, (False, ""))
            twins = f"{twins}, " * bool(twins) + f"engines.toml [{engine.name}] {key}"
            found[variable] = (taken or was_taken, twins)
    return found


def _why_not(variable: str) -> str:
    if variable in WITHOUT_TWIN:
        return WITHOUT_TWIN[variable]
    return "it has no value that can be used, or nothing here knows it; see docs/from-ollama.md"
