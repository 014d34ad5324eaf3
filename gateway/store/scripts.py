"""The Lua scripts, and how buckets and calls are named and told to them.

`buckets.lua` says again what arithmetic.py says; the other files are one step each.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway.store.protocol import Bucket, Demand

SCRIPTS = ("reserve", "settle", "renew")
PREFIX = "{penstock}:"  # the hash tag of all keys


class Script(Struct, frozen=True):
    """A Lua script and the digest that Redis knows it by."""

    source: bytes
    digest: bytes


@lru_cache(maxsize=8)
def script_of(name: str) -> Script:
    """A script of this folder, behind the functions that all of them use."""
    folder = Path(__file__).parent
    source = b"\n".join((folder / f"{part}.lua").read_bytes() for part in ("buckets", name))
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())


def keys_of(call_id: str, demands: Sequence[Demand]) -> list[bytes]:
    return [
        f"{PREFIX}call:{call_id}".encode(),
        *[key_of(demand.bucket) for demand in demands],
    ]


@lru_cache(maxsize=10_000)
def key_of(bucket: Bucket) -> bytes:
    return f"{PREFIX}limit:{bucket.key}".encode()


@lru_cache(maxsize=10_000)
def wire_of(bucket: Bucket) -> tuple[Any, ...]:
    """A bucket as `buckets.lua` reads it."""
    return (
        bucket.kind, bucket.limit, bucket.burst, bucket.period, bucket.scale,
        bucket.enforced, bucket.clamps,
    )  # fmt: skip
