"""Limits while the shared store is away: this process's share of them, counted here."""

from collections.abc import Sequence

import msgspec

from gateway.limits.rules import Rule, Rules
from gateway.store import MemoryStore

MAX_KNOWN = 10_000  # rules whose shares are remembered


class LocalLimits:
    """Each limit divided by the number of gateways; a budget starts at nothing used."""

    def __init__(self, *, replicas: int) -> None:
        self.store = MemoryStore()
        self._replicas = replicas
        self._known: dict[tuple[Rules, tuple[int, ...]], Rules] = {}

    def share_of(self, rules: Rules, places: Sequence[int]) -> Rules:
        """Those at these places, of smaller buckets."""
        asked = (rules, tuple(places))
        shared = self._known.get(asked)
        if shared is None:
            shared = Rules(self._shared(rules[place]) for place in places)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[asked] = shared
        return shared

    def _shared(self, rule: Rule) -> Rule:
        if self._replicas == 1:
            return rule
        bucket = rule.bucket
        return msgspec.structs.replace(
            rule,
            whose=f"{rule.whose}, this gateway's share",
            bucket=msgspec.structs.replace(
                bucket,
                limit=max(1, bucket.limit // self._replicas),
                burst=max(1, bucket.burst // self._replicas),
            ),
        )
