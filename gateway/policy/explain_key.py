"""Says what a key takes away of what its team may do, in the order in which it would be decided."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from gateway.endpoints import deciding_pattern
from gateway.policy.problems import quoted
from gateway.policy.schema import Policy


class Line(Struct, frozen=True):
    """One thing that would happen, and where it was decided."""

    text: str
    where: str
    refused: bool = False  # the call ends here


class CallersKey(Protocol):
    """What is to be known of a key; the rows of `gateway.keys` have it."""

    @property
    def id(self) -> str: ...
    @property
    def team(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def models(self) -> Sequence[str] | None: ...
    @property
    def endpoints(self) -> Sequence[str] | None: ...
    @property
    def networks(self) -> Sequence[str] | None: ...
    @property
    def limits(self) -> str | None: ...


def key_told(policy: Policy, key: CallersKey, *, endpoint: str) -> Iterator[Line]:
    """Whether the key is good for anything, and whether for this endpoint."""
    where = f"key {key.id}"
    if "api_keys" not in policy.plugins:
        yield Line("refused: no plugin knows keys", "gateway.toml plugins", refused=True)
    if key.state != "active":
        yield Line(f"refused: {where} is {key.state}", where, refused=True)
    yield Line(f"{where} acts for {key.team}, as {key.role}", where)
    if "allow_lists" not in policy.plugins:
        return
    if key.limits is not None and key.limits not in policy.limits:
        yield Line(
            f"refused: limits.toml has no {quoted(key.limits)} any more, and without it the key "
            "would be wider than it was made",
            f"{where} limits",
            refused=True,
        )
    if key.networks is not None:
        yield networks_told(key.networks, f"{where} networks")
    if key.endpoints is not None:
        yield permission_told(where, "endpoints", key.endpoints, endpoint, where)


def networks_told(networks: Sequence[str], where: str) -> Line:
    """From where calls may come."""
    listed = ", ".join(quoted(network) for network in networks[:6])
    return Line(f"only from an address in {listed}", where)


def permission_told(who: str, field: str, patterns: Sequence[str], name: str, place: str) -> Line:
    """Whether somebody may use an endpoint or a model, and the pattern that says so."""
    where = f"{place} {field}"
    if (allowing := deciding_pattern(name, patterns)) is not None:
        return Line(f"{who} may use {name}", f"{where} {quoted(allowing)}")
    for pattern in patterns:
        if pattern.startswith("!") and deciding_pattern(name, [pattern[1:]]) is not None:
            return Line(
                f"refused: {who} may not use {name}", f"{where} {quoted(pattern)}", refused=True
            )
    if not patterns:
        noun = field.removesuffix("s")
        return Line(f"refused: {who} may use no {noun} at all", where, refused=True)
    listed = ", ".join(quoted(pattern) for pattern in patterns[:6])
    return Line(f"refused: {who} may not use {name}", f"{where} has only {listed}", refused=True)
