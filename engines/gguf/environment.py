"""What Ollama's environment variables say of an engine: defaults for keys of its table.

A policy's own key always wins; see `EngineRegistry.add`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
_PIECE = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")


def ollama_defaults(environ: Mapping[str, str]) -> dict[str, tuple[str, object]]:
    """Keys of `GgufConfig` that the environment has a default for: key -> (variable, value).

    What cannot be read is as good as not set, as with Ollama: 0 parallel requests
    means "as many as fit" there, too.
    """
    found: dict[str, tuple[str, object]] = {}
    for variable, (key, read) in TWINS.items():
        text = environ.get(variable, "").strip().strip("'\"")
        value = read(text) if text else None
        if value is not None:
            found[key] = (variable, value)
    return found


def seconds_of(text: str) -> float | None:
    """A duration as Ollama writes it: `5m`, `1h30m`, a number of seconds; below 0 is for ever."""
    sign, text = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if re.fullmatch(r"\d+(\.\d*)?", text):
        return sign * float(text)
    if not _DURATION.fullmatch(text):
        return None
    return sign * sum(float(number) * _SECONDS[unit] for number, unit in _PIECE.findall(text))


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _folder(text: str) -> str | None:
    folder = Path(text).expanduser()
    return str(folder) if folder.is_dir() else None


# variable -> the key of an engine's table, and how its value is read
TWINS: Mapping[str, tuple[str, Callable[[str], object | None]]] = {
    "OLLAMA_MODELS": ("ollama_models_dir", _folder),
    "OLLAMA_KEEP_ALIVE": ("keep_alive_seconds", seconds_of),
    "OLLAMA_NUM_PARALLEL": ("num_slots", _count),
    "OLLAMA_MAX_LOADED_MODELS": ("max_loaded_models", _count),
    "OLLAMA_MAX_QUEUE": ("max_waiting", _count),
    "OLLAMA_CONTEXT_LENGTH": ("context_tokens", _count),
}
