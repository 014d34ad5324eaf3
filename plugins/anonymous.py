"""Identifies callers on this machine as one team, without a key. For development.

"On this machine" is more than the address: a web page in a browser here, or a
proxy here that forwards for anyone, connects from loopback too.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import ClassVar
from urllib.parse import urlsplit

from msgspec import Struct

from gateway import Call, Principal, hookimpl

MAX_URL = 300  # characters of an origin; no name of this machine is longer


class Anonymous:
    """Accepts a call only if nothing about it points away from this machine.

    Every other call gets None here, and so a 401 unless a later plugin knows it.
    """

    class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        """`[anonymous]` of gateway.toml."""

        team: str  # every caller on this machine is of this team
        hosts: Sequence[str] = ()  # names besides localhost by which the gateway may be called

    table: ClassVar[type[Struct]] = Table

    @hookimpl
    async def identify(self, call: Call, headers: Mapping[str, str]) -> Principal | None:
        """The team of the table for a caller on this machine, else None."""
        table = call.policy.table("anonymous", Anonymous.Table)
        if not is_from_this_machine(call, headers, table.hosts):
            return None
        return Principal(name="anonymous", team=table.team)


def is_from_this_machine(call: Call, headers: Mapping[str, str], hosts: Sequence[str] = ()) -> bool:
    """Whether nothing about a call points away from here; `hosts` are further names of ours."""
    names = frozenset(name.lower() for name in hosts)
    return (
        _is_local_client(call.client.host)
        and not _was_forwarded(headers)
        and _is_local_url(f"//{headers.get('host', '')}", names)
        and _comes_from_no_web_page(headers, names)
    )


def _is_local_client(host: str | None) -> bool:
    return host is None or _is_loopback_address(host)  # None: a Unix socket


def _was_forwarded(headers: Mapping[str, str]) -> bool:
    """Did a proxy pass this on? It makes every caller look local."""
    return any(
        name in ("forwarded", "via", "x-real-ip") or name.startswith("x-forwarded-")
        for name in headers
    )


def _comes_from_no_web_page(headers: Mapping[str, str], names: frozenset[str]) -> bool:
    """A page from elsewhere must not reach the gateway through the browser that shows it."""
    if headers.get("sec-fetch-site") == "cross-site":
        return False
    origin = headers.get("origin")
    return origin is None or _is_local_url(origin, names)


def _is_local_url(url: str, names: frozenset[str]) -> bool:
    """Is its host this machine, by its own name?

    A name that only resolves to loopback is not enough: that is DNS rebinding
    (CVE-2024-28224).
    """
    return len(url) <= MAX_URL and _is_local(url, names)


@lru_cache(maxsize=256)  # the same few come with every call, and reading one takes long
def _is_local(url: str, names: frozenset[str]) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is no number raises too
    except ValueError:
        return False
    if not host or parts.username is not None or parts.path or parts.query or parts.fragment:
        return False
    name = host.removesuffix(".")
    return name == "localhost" or name in names or _is_loopback_address(name)


@lru_cache(maxsize=256)
def _is_loopback_address(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
