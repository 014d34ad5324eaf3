"""Limits while the shared store is away: this process's share of them, counted here."""

from collections.abc import Sequence

import msgspec

from gateway.store import Demand, MemoryStore


class LocalLimits:
    """Each limit divided by the number of gateways; a budget starts at nothing used."""

    def __init__(self, *, replicas: int) -> None:
        self.store = MemoryStore()
        self._replicas = replicas

    def share_of(self, demands: Sequence[Demand]) -> list[Demand]:
        """The same demands, of smaller buckets."""
        return [self._shared(demand) for demand in demands]

    def _shared(self, demand: Demand) -> Demand:
        bucket = demand.bucket
        return msgspec.structs.replace(
            demand,
            bucket=msgspec.structs.replace(
                bucket,
                limit=max(1, bucket.limit // self._replicas),
                burst=max(1, bucket.burst // self._replicas),
            ),
        )
