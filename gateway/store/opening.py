"""Opens the store that the settings name: `memory:` or a Redis URL."""

from pathlib import Path

from gateway.store.budget_file import KeptMemoryStore
from gateway.store.memory import MemoryStore
from gateway.store.redis import RedisStore
from gateway.store.redis_address import SCHEMES, StoreNotOpened, parse_redis_url, without_password

MEMORY = "memory:"


def open_store(url: str, *, data_dir: Path | None = None) -> MemoryStore | RedisStore:
    """The store of this URL, not yet running. Raises `StoreNotOpened`.

    The memory store keeps its daily and monthly windows in `data_dir`, if it is given.
    """
    if url == MEMORY:
        return MemoryStore() if data_dir is None else KeptMemoryStore(data_dir / "budgets.json")
    if url.partition("://")[0] in SCHEMES:
        return RedisStore(parse_redis_url(url))
    raise StoreNotOpened(
        f"PENSTOCK_STORE={without_password(url)!r} is no store; it is {MEMORY!r} or "
        "redis://host:6379/0 (rediss:// for TLS, unix:// for a socket)"
    )
