"""Short-lived state that calls share: limit buckets and leases.

`memory:` is one process's own; `redis://` is shared by many. Both give the same
answers (tests/contract/test_store.py).
"""

from gateway.store.memory import MemoryStore
from gateway.store.opening import open_store
from gateway.store.protocol import (
    Bucket,
    Decision,
    Demand,
    Fill,
    Store,
    StoreUnavailable,
)
from gateway.store.redis import RedisStore
from gateway.store.redis_address import StoreNotOpened

__all__ = [
    "Bucket",
    "Decision",
    "Demand",
    "Fill",
    "MemoryStore",
    "RedisStore",
    "Store",
    "StoreNotOpened",
    "StoreUnavailable",
    "open_store",
]
