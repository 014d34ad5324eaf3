"""What the gateway serves with at one moment: a policy, the plugins and engines that it asks for.

A reload replaces it whole. A call keeps the one that it began with, so that it meets
neither a plugin without its table nor an engine that its policy does not know.
"""

from collections.abc import Mapping

from msgspec import Struct

from engines.protocol import Engine
from gateway.hooks import Hooks
from gateway.policy import Policy
from gateway.targets import Targets


class Serving(Struct, frozen=True, kw_only=True):
    """One policy and all that is made of it. `targets` is the same in each."""

    policy: Policy
    hooks: Hooks
    engines: Mapping[str, Engine]
    targets: Targets
