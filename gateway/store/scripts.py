"""The Lua scripts, and how buckets and calls are named and told to them.

`buckets.lua` says again what arithmetic.py says; the other files are one step each.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from gateway.store.protocol import Bucket
from gateway.store.redis_wire import bulk

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


class ScriptCall(Struct, frozen=True):
    """A script, and what it is called with: how many keys, then these and the payload in RESP."""

    name: str
    num_keys: int
    arguments: bytes

    def by_digest(self) -> bytes:
        """The command for a Redis that knows the script."""
        return _head(b"EVALSHA", script_of(self.name).digest, self.num_keys) + self.arguments

    def whole(self) -> bytes:
        """The command with the script in it."""
        return _head(b"EVAL", script_of(self.name).source, self.num_keys) + self.arguments


def script_call(name: str, keys: Sequence[bytes], payload: bytes) -> ScriptCall:
    """A script over any keys."""
    return ScriptCall(name, len(keys), b"".join(map(bulk, (*keys, payload))))


class ToldBuckets(Struct, frozen=True):
    """The buckets of a caller's calls, as Redis is told of them."""

    num_keys: int  # of them and of the call
    keys: bytes  # in RESP
    leases: Sequence[bytes]  # the keys of those that a running call renews

    def called(self, name: str, call_id: str, payload: bytes) -> ScriptCall:
        """A script for one call, over these buckets."""
        arguments = bulk(key_of_call(call_id)) + self.keys + bulk(payload)
        return ScriptCall(name, self.num_keys, arguments)


@lru_cache(maxsize=10_000)
def told(buckets: tuple[Bucket, ...]) -> ToldBuckets:
    """The same for every call of one caller, so it is made once."""
    keys = [f"{PREFIX}limit:{bucket.key}".encode() for bucket in buckets]
    leases = [key for key, bucket in zip(keys, buckets, strict=True) if bucket.kind == "leases"]
    return ToldBuckets(1 + len(keys), b"".join(map(bulk, keys)), leases)


def key_of_call(call_id: str) -> bytes:
    """Where a call's reservation is."""
    return f"{PREFIX}call:{call_id}".encode()


@lru_cache(maxsize=1024)
def _head(command: bytes, script: bytes, num_keys: int) -> bytes:
    parts = (command, script, b"%d" % num_keys)
    return b"*%d\r\n%b" % (len(parts) + num_keys + 1, b"".join(map(bulk, parts)))
