"""What a policy's engines.toml may say about an engine of kind `remote`.

Secrets are references. What they are and how they are read is the gateway's;
here they are anything that can be asked for its value.
"""

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Literal, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from engines.protocol import Capability
from engines.remote.addresses import AddressForbidden, AddressRules

# What belongs to one connection, or to the caller and nobody else. Never passed on in
# either direction, whatever a policy lists.
PRIVATE_HEADERS = frozenset(
    {
        "accept-encoding", "api-key", "authorization", "connection", "content-encoding",
        "content-length", "content-type", "cookie", "expect", "forwarded", "host", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "set-cookie", "te", "trailer",
        "transfer-encoding", "upgrade", "via", "www-authenticate", "x-api-key",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip",
    }
)  # fmt: skip
# Say where a request ends, or ask for another protocol: the client below writes them, or nobody.
_FRAMING_HEADERS = frozenset(
    {"content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"}
)
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_PASSED = re.compile(r"(?:(?:GET|POST|DELETE) )?[a-z][a-z0-9_-]*(?:/(?:\*|[A-Za-z0-9_.-]+))*")

_ABOVE_ZERO = (
    "connect_seconds",
    "first_byte_seconds",
    "idle_seconds",
    "total_seconds",
    "max_connections",
    "max_answer_bytes",
    "max_event_bytes",
)


class SecretSource(Protocol):
    """Where a secret is kept."""

    def reveal(self) -> str:
        """The secret itself. Raises `ValueError` where it is missing."""
        ...


class RemoteConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that speaks OpenAI's dialect."""

    base_url: str
    """Where the server's endpoints begin: `https://upstream.example.com/v1`."""

    api_key: SecretSource | None = None
    """Sent as `Authorization: Bearer`. A new value is used within seconds."""

    headers: Mapping[str, str] = {}
    """Headers that every request to the server carries."""

    secret_headers: Mapping[str, SecretSource] = {}
    """The same, with values that are secrets: `{ api-key = { env = "AZURE_KEY" } }`."""

    models: Sequence[str] = ("*",)
    """The server's models that may be asked for: names and globs, `!glob` denies. Globs are filled
    in from the server's own list."""

    refresh_seconds: float = 60.0
    """How often the server's list of models is read again; 0: never, then only names count."""

    context_tokens: Mapping[str, int] = {}
    """The context of models whose server does not tell it, by the server's name for them."""

    capabilities: Mapping[str, Sequence[Capability]] = {}
    """The same for what models can do: `{ "qwen/small" = ["chat", "tools"] }`."""

    connect_seconds: float = 5.0
    """How long a connection may take to open."""

    first_byte_seconds: float = 120.0
    """How long the answer's headers may take. A whole answer is made before its headers."""

    idle_seconds: float = 60.0
    """How long an answer may pause between two bytes."""

    total_seconds: float = 900.0
    """How long an answer may take, first byte of the request to last byte of the answer."""

    max_connections: int = 1024
    """Requests that may be under way at once; one more is refused as overloaded."""

    max_answer_bytes: int = 64 * 1024 * 1024
    """The longest answer that is not streamed."""

    max_event_bytes: int = 8 * 1024 * 1024
    """The longest event of a stream."""

    ask_for_usage: bool = True
    """Ask for the token counts of a stream. For servers that refuse `stream_options`: false; the
    counts of a stream are then estimates."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What a chat request's cap is called where policy sets one and the caller has not."""

    passthrough: Sequence[str] = ()
    """More of the server's paths that may be called, each POST unless it says otherwise:
    `["responses", "GET responses/*", "audio/speech"]`."""

    pass_headers: Sequence[str] = ()
    """The caller's headers that the server may see, beside `traceparent` and `tracestate`."""

    return_headers: Sequence[str] = ()
    """The server's headers that the caller may see."""

    relay_errors: bool = True
    """Whether a refusal that the caller can act on keeps the server's own words."""

    verify: bool = True
    """Whether the server's certificate is checked."""

    ca_file: str | None = None
    """Certificates to trust in place of the system's."""

    allow_private: bool = True
    """Whether the server may have a private or loopback address."""

    allow_networks: Sequence[str] = ()
    """Networks that may be connected to in spite of every rule: `["169.254.10.0/24"]`."""

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        for network in self.allow_networks:
            ip_network(network)  # says itself what is wrong
        _check_address(self)
        _check_headers(self)
        for entry in self.passthrough:
            if _PASSED.fullmatch(entry) is None:
                raise ValueError(
                    f"passthrough has {entry!r}; write a path below base_url, with GET or DELETE "
                    'before it where it is not POST: "responses", "GET responses/*"'
                )
        for field in _ABOVE_ZERO:
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be over 0")
        if self.ca_file is not None and not self.verify:
            raise ValueError("ca_file with verify = false checks nothing; leave one of them out")


def _check_headers(config: RemoteConfig) -> None:
    passed = (*config.pass_headers, *config.return_headers)
    for name in (*config.headers, *config.secret_headers, *passed):
        if _HEADER_NAME.fullmatch(name.lower()) is None:
            raise ValueError(f"{name!r} is not the name of a header")
    for name in (*config.headers, *config.secret_headers):
        if name.lower() in _FRAMING_HEADERS:
            raise ValueError(f"the header {name!r} cannot be chosen; leave it out")
    for name, value in config.headers.items():
        if not value.isprintable():
            raise ValueError(f"the header {name!r} has a line break in it, or worse")
    for name in passed:
        if name.lower() in PRIVATE_HEADERS:
            raise ValueError(f"the header {name!r} is never passed on")


def _check_address(config: RemoteConfig) -> None:
    rules = AddressRules(allow_private=config.allow_private, allow_networks=config.allow_networks)
    try:
        rules.check_literal((urlsplit(config.base_url).hostname or "").rstrip("."))
    except AddressForbidden as error:
        words = f"base_url is {config.base_url!r}; {error} (allow_networks makes exceptions)"
        raise ValueError(words) from None


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"base_url is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"base_url is {url!r}; write https://host/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url holds a password; write it as api_key")
    is_plain = url.isascii() and url.isprintable() and not {" ", "\\"} & set(url)
    if parts.query or parts.fragment or not is_plain:
        raise ValueError(f"base_url is {url!r}; it may have a host, a port and a path")
