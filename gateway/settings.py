"""The few environment variables of one process.

If it changes what a call may do, it is policy; if it differs between two
machines that run the same policy, it is a setting.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.networks import UNIX, network_problem
from gateway.ollama_variables import twin_settings


class SettingsInvalid(ValueError):
    """An environment variable has a value that it cannot have; the message names both."""


class Settings(Struct, frozen=True, kw_only=True):
    """One process's settings; each field is the variable `PENSTOCK_<FIELD>`.

    `PENSTOCK_<FIELD>_FILE` names a file that holds the value, for secrets.
    """

    policy: Path = Path("policies/dev")
    watch_seconds: float = 0.0  # how often to look whether the policy changed; 0: never
    host: str = "127.0.0.1"
    port: int = 8080
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None  # admin endpoints listen here, and only here
    trusted_proxies: tuple[str, ...] = ()  # whose X-Forwarded-For is believed
    store: str = "memory:"  # or redis://…, shared by several gateways
    ledger: str = ""  # SQLAlchemy URL; empty: an SQLite file in the data directory
    data_dir: Path = Path()  # ledger file, pepper, probe results
    models_dir: Path = Path()  # GGUF files
    pepper: str = ""  # secret mixed into key digests; empty: a file in the data directory
    max_body_bytes: int = 32 * 1024 * 1024
    max_blob_bytes: int = 128 * 1024**3  # a model's file that is sent for `ollama create`
    max_connections: int = 4096  # one more is answered 503
    header_seconds: float = 10.0  # how long the head of a request may take
    body_seconds: float = 30.0  # how long a body may keep us waiting, and 1 s more for each 16 KiB
    send_seconds: float = 30.0  # how long output may wait for a client that does not read
    keep_alive_seconds: float = 75.0  # longer than a proxy keeps a connection, or calls get lost
    drain_seconds: float = 20.0  # how long running calls may finish after SIGTERM
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @property
    def ledger_url(self) -> str:
        """The ledger's SQLAlchemy URL, with the default filled in."""
        return self.ledger or f"sqlite+aiosqlite:///{self.data_dir / 'ledger.db'}"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from the environment. Raises `SettingsInvalid`.

    Where neither a setting's own variable nor one of Ollama's says anything, the default holds.
    """
    given: dict[str, object] = {}
    for field in Settings.__struct_fields__:
        variable = f"PENSTOCK_{field.upper()}"
        value = _value_of(variable, environ)
        if value is None or value == "":
            continue
        expected = Settings.__annotations__[field]
        given[field] = _converted(variable, value, expected)
    given |= {field: value for field, (_, value) in twin_settings(environ, given).items()}
    data_home = Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    given.setdefault("data_dir", data_home / "penstock")
    data_dir = given["data_dir"]
    assert isinstance(data_dir, Path)
    given.setdefault("models_dir", data_dir / "models")
    given.setdefault("policy", shipped_policy("dev"))
    return Settings(**given)  # pyright: ignore[reportArgumentType]


def shipped_policy(name: str) -> Path:
    """Where the policy directory that ships under this name is.

    In the working directory for whoever works in a clone; else beside this
    package, where a wheel has it, or one above, where a clone has it.
    """
    here = Path(__file__).parent
    places = [Path("policies"), here / "policies", here.parent / "policies"]
    found = next((place for place in places if (place / name).is_dir()), places[0])
    return found / name


def _value_of(variable: str, environ: Mapping[str, str]) -> str | None:
    """The variable's value, or the content of the file that `<variable>_FILE` names.

    A secret in a file is not in the environment, which children inherit and other
    processes of the same user can read.
    """
    value, path = environ.get(variable), environ.get(f"{variable}_FILE")
    if not path:
        return value
    if value:
        raise SettingsInvalid(f"{variable} and {variable}_FILE are both set; set one of them")
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{variable}_FILE={path!r} cannot be read: {error}") from None


def _converted(variable: str, value: str, expected: object) -> object:
    if expected is Path:
        return Path(value).expanduser()
    if expected == tuple[str, ...]:
        return _networks(variable, value)
    try:
        return msgspec.convert(value, type=expected, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsInvalid(f"{variable}={value!r}: {_lowered(str(error))}") from None


def _networks(variable: str, value: str) -> tuple[str, ...]:
    """Networks with commas or space between. Trusting everybody is trusting nobody's word."""
    networks = tuple(value.replace(",", " ").split())
    for network in networks:
        problem = network_problem(network)
        if network == "*" or network.endswith("/0") or network.startswith("!"):
            problem = "would believe what callers say of themselves: name the proxies"
        if problem:
            raise SettingsInvalid(
                f"{variable}={value!r}: {network!r} {problem} "
                f"(networks with commas between, or {UNIX} for a proxy on a Unix socket)"
            )
    return networks


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]
