"""What the gateway serves with at one moment: a policy, the plugins and engines that it asks for.

A reload replaces it whole. A call keeps the one that it began with, so that it meets
neither a plugin without its table nor an engine that its policy does not know.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from engines.protocol import Engine
from gateway.hooks import Hooks
from gateway.listed_names import ListedNames
from gateway.policy import Policy
from gateway.targets import Targets


class Serving(Struct, frozen=True, kw_only=True):
    """One policy and all that is made of it. `targets` is the same in each."""

    policy: Policy
    hooks: Hooks
    engines: Mapping[str, Engine]
    targets: Targets
    listed_names: ListedNames = msgspec.field(default_factory=ListedNames)

    async def listed_name(self, name: str) -> str:
        """How the model that `name` means is listed; see gateway/listed_names.py."""
        return await self.listed_names.find(self.policy, self.engines, name)
