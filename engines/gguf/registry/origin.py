"""Where a model is to be fetched from, or pushed to, read off what the user typed."""

import ipaddress
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from msgspec import Struct
from yarl import URL

from engines.errors import RequestRefused
from engines.gguf.files.names import ModelName, parse_name
from engines.gguf.registry.web import checked_url

_SCHEME = re.compile(r"(https?)://(.*)", re.IGNORECASE | re.DOTALL)
_NO_LETTERS = re.compile(r"[^A-Za-z0-9_.-]+")


class Origin(Struct, frozen=True):
    """A name, and how to reach its host; with `url`, a plain file that gets the name."""

    name: ModelName
    scheme: str = "https"
    url: URL | None = None


def origin_of(text: str) -> Origin:
    """Read what a user typed. Raises `RequestRefused`."""
    found = _SCHEME.fullmatch(text)
    if found is not None and found[2].partition("?")[0].lower().endswith(".gguf"):
        url = checked_url(text)
        return Origin(_named_after(url), url=url)
    name = parse_name(found[2] if found else text)
    if found is not None:
        return Origin(name, scheme=found[1].lower())
    return Origin(name, scheme="http" if is_loopback(name.host) else "https")


def check_host(origin: Origin, allowed: Sequence[str] | None) -> None:
    """Raise `RequestRefused` for a host that is not among the allowed ones; None allows all."""
    host = (origin.url.authority if origin.url is not None else origin.name.host).lower()
    bare = host.rpartition(":")[0] or host
    if allowed is None or any(fnmatchcase(h, one.lower()) for one in allowed for h in (host, bare)):
        return
    raise RequestRefused(
        f"models may not be pulled from or pushed to {host} here; the policy's `registries` are "
        f"{', '.join(allowed) or 'none'}",
        param="model",
    )


def is_loopback(host: str) -> bool:
    """Is this host, with or without a port, this machine?"""
    bare = host.rpartition(":")[0] if host.count(":") == 1 else host
    if bare.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def _named_after(url: URL) -> ModelName:
    stem = url.name[: -len(".gguf")]
    model = _NO_LETTERS.sub("-", stem).strip("-.")[:80]
    if not model:
        raise RequestRefused(f"{str(url)!r:.200} ends with no name for a model", param="model")
    return parse_name(model)
