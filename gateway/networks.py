"""IP networks as policies, keys and settings write them, and where a call really comes from.

A pattern is a CIDR (`10.0.0.0/8`), an address, `*` for any, or `unix` for a Unix
socket; one that starts with `!` denies, and a denial wins whatever the order. An
IPv4 address is the same written as `::ffff:10.0.0.7`.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

UNIX = "unix"
# What stands for the address of a caller that a trusted proxy did not name in a way
# that can be read. It is in no network, and is never this machine.
UNKNOWN_ADDRESS = "unknown"

_MAX_HOPS = 32  # a chain of proxies this long is a forgery or a loop


def network_problem(pattern: str) -> str:
    """Why `pattern` is no network, or nothing."""
    bare = pattern.removeprefix("!")
    if bare in ("*", UNIX):
        return ""
    try:
        ip_network(bare)
    except ValueError:
        return _way_out(bare)
    return ""


def is_in(address: str | None, patterns: Iterable[str]) -> bool:
    """Is the address allowed by some pattern and denied by none? None is a Unix socket."""
    return deciding_network(address, patterns) is not None


def deciding_network(address: str | None, patterns: Iterable[str]) -> str | None:
    """The pattern that allows the address, or None if none does or one denies it.

    An address that cannot be read, and a pattern that cannot, fit nothing; a denial
    that cannot be read denies everything.
    """
    found = UNIX if address is None else _address_of(address)
    if found is None:
        return None
    allowed: str | None = None
    for pattern, denies, network in _read(tuple(patterns)):
        fits = _fits(found, pattern.removeprefix("!"), network)
        if denies and (fits or (network is None and network_problem(pattern))):
            return None
        if not denies and fits and allowed is None:
            allowed = pattern
    return allowed


def true_client(peer: str | None, forwarded_for: str | None, proxies: Sequence[str]) -> str | None:
    """Where a call comes from: the peer, or what a trusted proxy says in X-Forwarded-For.

    The header is read from the right, as each proxy adds what it saw at the end: the
    first address that is no trusted proxy is the caller. What stands left of it is
    the caller's own word and is not looked at.
    """
    if forwarded_for is None or not proxies or not is_in(peer, proxies):
        return peer
    client = peer
    # In a chain that is too long the leftmost part keeps its commas and so cannot be read.
    for hop in reversed(forwarded_for.rsplit(",", _MAX_HOPS)):
        client = _hop(hop)
        if client is None or not is_in(client, proxies):
            return client or UNKNOWN_ADDRESS
    return client


def _hop(text: str) -> str | None:
    """The address in one part of X-Forwarded-For, which may carry a port."""
    text = text.strip()
    if text.startswith("["):
        inside, _, port = text[1:].partition("]")
        if port and not (port.startswith(":") and port[1:].isascii() and port[1:].isdigit()):
            return None
        text = inside
    elif text.count(":") == 1 and "." in text:
        text, _, port = text.partition(":")
        if not (port.isascii() and port.isdigit()):
            return None
    address = _address_of(text)
    return None if address is None else str(address)


def _address_of(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)
def _read(patterns: tuple[str, ...]) -> tuple[tuple[str, bool, Network | None], ...]:
    """Each pattern, whether it denies, and its network if it has one."""
    return tuple((pattern, pattern.startswith("!"), _network_of(pattern)) for pattern in patterns)


def _network_of(pattern: str) -> Network | None:
    try:
        return ip_network(pattern.removeprefix("!"))
    except ValueError:
        return None


def _fits(address: IPv4Address | IPv6Address | str, pattern: str, network: Network | None) -> bool:
    if pattern == "*":
        return True
    if isinstance(address, str):
        return pattern == UNIX
    return network is not None and address.version == network.version and address in network


def _way_out(text: str) -> str:
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        return "is not a network: it is written like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7"
    return f"has bits set outside its mask; write {meant}"
