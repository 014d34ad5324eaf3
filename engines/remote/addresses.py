"""Which addresses an upstream may have.

A base URL comes from the policy, but what its name resolves to comes from
whoever runs the name server. So the rule is applied to the address that is
about to be connected to, each time, and not only to the URL: a name that turns
into a cloud's metadata service an hour later (DNS rebinding), or is one in a
spelling that only the resolver understands, ends here. A URL with an address in
the place of a name is refused as soon as the policy is read.
"""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Metadata services outside the link-local ranges.
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS, credentials of pods
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
    )
)
_NAT64 = ip_network("64:ff9b::/96")
_SHARED = ip_network("100.64.0.0/10")  # RFC 6598: neither private nor public to Python


class AddressForbidden(OSError):
    """A connection was not opened: its address is against the rules."""


class AddressRules:
    """Never link-local, metadata, multicast or unspecified; private ones unless told not to."""

    def __init__(self, *, allow_private: bool, allow_networks: Sequence[str] = ()) -> None:
        self._allow_private = allow_private
        self._allowed = [ip_network(network) for network in allow_networks]

    def check(self, host: str) -> None:
        """Raise `AddressForbidden` unless this numeric address may be connected to."""
        address = _plain(ip_address(host.partition("%")[0]))
        if any(address in network for network in self._allowed):
            return
        if (
            address in _METADATA
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or (address.is_reserved and address.version == 4)
        ):
            raise AddressForbidden(f"{address} is an address that no upstream may have")
        if not self._allow_private and (not address.is_global or address in _SHARED):
            raise AddressForbidden(f"{address} is a private address, and allow_private is false")

    def check_literal(self, host: str) -> None:
        """The same for a host that is an address in any spelling that connecting would take.

        A name passes: what it leads to is known when it is connected to.
        """
        try:
            places = socket.getaddrinfo(host.partition("%")[0], None, flags=socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            return
        for place in places:
            self.check(str(place[4][0]))

    def open_socket(self, place: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """A socket for a connection to `place` (as getaddrinfo says it), if that may be opened."""
        family, kind, protocol, _, where = place
        self.check(str(where[0]))
        opened = socket.socket(family, kind, protocol)
        # A request must not wait for the acknowledgement of the one before it.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.settimeout(0)
        return opened


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
