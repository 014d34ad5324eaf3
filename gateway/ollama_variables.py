"""The environment variables that Ollama reads, and what each of them is here.

Some have a twin among the settings; they count where the setting's own variable
is not set. Some have one among the keys of an engine's table; they count where
the policy leaves that key out (see `EngineRegistry.add`). The others have none,
each for the reason given here. docs/from-ollama.md has them all.
"""

from collections.abc import Container, Mapping

from msgspec import Struct

_PORT = 11434  # where Ollama listens

# variable -> the settings that it stands for
TWIN_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "OLLAMA_HOST": ("host", "port"),
    "OLLAMA_DEBUG": ("log_level",),
}
_TRUE = ("1", "t", "true", "y", "yes", "on")

# variable -> why it has no twin, and what there is instead
WITHOUT_TWIN: Mapping[str, str] = {
    "OLLAMA_ORIGINS": "no answer lets other sites' pages in; a proxy in front can (docs/nginx.md)",
    "OLLAMA_LOAD_TIMEOUT": "a load ends or fails by itself, and callers wait as long as they like",
    "OLLAMA_GPU_OVERHEAD": "max_gpu_memory_bytes in engines.toml says how much may be taken",
    "OLLAMA_SCHED_SPREAD": "llama.cpp spreads a model over GPUs by itself",
    "OLLAMA_MULTIUSER_CACHE": "prefixes are shared between requests anyway",
    "OLLAMA_NOPRUNE": "nothing is pruned at start; a blob goes when its last model is deleted",
    "OLLAMA_TMPDIR": "nothing is unpacked",
    "OLLAMA_LLM_LIBRARY": "llama.cpp is built for this machine, see docs/engines.md",
    "OLLAMA_NEW_ENGINE": "there is one way to run a model of llama.cpp's",
    "OLLAMA_VULKAN": "GPU backends are chosen when llama.cpp is built, see docs/engines.md",
    "OLLAMA_INTEL_GPU": "GPU backends are chosen when llama.cpp is built, see docs/engines.md",
    "OLLAMA_MAX_TRANSFER_STREAMS": "a pull fetches eight parts at once",
    "OLLAMA_REMOTES": "other machines' models are an engine of kind remote in engines.toml",
    "OLLAMA_NO_CLOUD": "there is no cloud that it would be kept from",
    "OLLAMA_AUTH": "API keys are the policy's, see docs/keys.md",
    "OLLAMA_USE_AUTH": "API keys are the policy's, see docs/keys.md",
    "OLLAMA_API_KEY": "it is a key of ollama.com; one of Penstock's is PENSTOCK_API_KEY",
}
# What only `penstock run` looks at.
OF_THE_COMMAND_LINE = ("OLLAMA_NOHISTORY",)


class OllamaHost(Struct, frozen=True):
    """What OLLAMA_HOST says: `[scheme://]host[:port][/path]`."""

    scheme: str
    host: str
    port: int
    path: str = ""


def ollama_host(text: str) -> OllamaHost | None:
    """Read OLLAMA_HOST; None where it is empty.

    A port that is none is the default one, as with Ollama: 11434, or the scheme's own.
    """
    text = text.strip().strip("'\"")
    if not text:
        return None
    scheme, separator, rest = text.rpartition("://")
    default = {"http": 80, "https": 443}.get(scheme, _PORT) if separator else _PORT
    place, slash, path = rest.partition("/")
    host, port = _split(place)
    return OllamaHost(
        scheme=scheme if separator else "http",
        host=host or "127.0.0.1",
        port=int(port) if port.isdigit() and int(port) < 65536 else default,
        path=(slash + path).rstrip("/"),
    )


def twin_settings(
    environ: Mapping[str, str], given: Container[str]
) -> dict[str, tuple[str, object]]:
    """Settings that Ollama's variables stand for: field -> (variable, value).

    A variable counts whole or not at all: none of its settings may be `given` otherwise.
    """
    found: dict[str, tuple[str, object]] = {}
    theirs = ollama_host(environ.get("OLLAMA_HOST", ""))
    if theirs is not None:
        found["host"] = ("OLLAMA_HOST", theirs.host)
        found["port"] = ("OLLAMA_HOST", theirs.port)
    if is_true(environ.get("OLLAMA_DEBUG", "")):
        found["log_level"] = ("OLLAMA_DEBUG", "debug")
    return {
        field: (variable, value)
        for field, (variable, value) in found.items()
        if not any(setting in given for setting in TWIN_SETTINGS[variable])
    }


def is_true(text: str) -> bool:
    """Is this what a variable says that is switched on? OLLAMA_DEBUG=2 is more than on."""
    text = text.strip().lower()
    return text in _TRUE or (text.isdigit() and int(text) > 0)


def _split(place: str) -> tuple[str, str]:
    """Host and port, either of which may be missing; an IPv6 address is in brackets, or alone."""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return host, rest.removeprefix(":")
    if place.count(":") > 1:
        return place, ""
    host, _, port = place.partition(":")
    return host, port
