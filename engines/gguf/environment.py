"""What Ollama's environment variables say of an engine: defaults for keys of its table.

A policy's own key always wins; see `EngineRegistry.add`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

from engines.gguf.config import CacheType

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
_PIECE = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")


def ollama_defaults(
    environ: Mapping[str, str], table: Mapping[str, object]
) -> dict[str, tuple[str, object]]:
    """Keys of `GgufConfig` that the environment has a default for: key -> (variable, value).

    What cannot be read is as good as not set, as with Ollama: 0 parallel requests
    means "as many as fit" there, too. So is what does not go with the rest of the table,
    which the policy's author wrote without knowing of this machine's variables.
    """
    found: dict[str, tuple[str, object]] = {}
    for variable, (keys, read) in TWINS.items():
        text = environ.get(variable, "").strip().strip("'\"")
        value = read(text) if text else None
        if value is not None:
            found |= dict.fromkeys(keys, (variable, value))
    _, flash_attention = found.get("flash_attention", ("", None))
    if table.get("cache") == "exact":  # it has its own types, and its own attention
        unfit = ("cache_type_k", "cache_type_v", "flash_attention")
    elif table.get("flash_attention", flash_attention) is False:
        unfit = ("cache_type_k", "cache_type_v")
    else:
        unfit = ()
    return {key: default for key, default in found.items() if key not in unfit}


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


def _switch(text: str) -> bool | None:
    return {"1": True, "true": True, "0": False, "false": False}.get(text.lower())


def _cache_type(text: str) -> str | None:
    return text.lower() if text.lower() in get_args(CacheType) else None


def _folder(text: str) -> str | None:
    folder = Path(text).expanduser()
    return str(folder) if folder.is_dir() else None


# variable -> the keys of an engine's table, and how its value is read
TWINS: Mapping[str, tuple[tuple[str, ...], Callable[[str], object | None]]] = {
    "OLLAMA_MODELS": (("ollama_models_dir",), _folder),
    "OLLAMA_KEEP_ALIVE": (("keep_alive_seconds",), seconds_of),
    "OLLAMA_NUM_PARALLEL": (("num_slots",), _count),
    "OLLAMA_MAX_LOADED_MODELS": (("max_loaded_models",), _count),
    "OLLAMA_MAX_QUEUE": (("max_waiting",), _count),
    "OLLAMA_CONTEXT_LENGTH": (("context_tokens",), _count),
    "OLLAMA_KV_CACHE_TYPE": (("cache_type_k", "cache_type_v"), _cache_type),
    "OLLAMA_FLASH_ATTENTION": (("flash_attention",), _switch),
}
