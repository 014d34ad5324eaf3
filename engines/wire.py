"""Requests and answers in the bytes of a dialect, for engines that pass them on as they are.

Part of what an engine is (engines/protocol.py): see `Relay` there.
"""

from collections.abc import Mapping

from msgspec import Struct


class WireRequest(Struct, frozen=True, kw_only=True):
    """A request as its client wrote it, for an engine whose upstream speaks the same dialect.

    What policy changed is in the request that carries this; whoever relays the
    body writes it in there, and the target's name for the model, and nothing else.
    """

    dialect: str
    method: str  # of HTTP
    path: str  # below the dialect's root: `chat/completions`
    body: bytes  # JSON, checked for size, depth and repeated keys; empty where there is none
    query: str = ""  # of the URL, without the question mark
    headers: Mapping[str, str] = {}  # lower-case names; which of them go on, the engine decides
    is_all: bool = False  # what the request beside it says in our words is its length and no more


class UpstreamHead(Struct, frozen=True, kw_only=True):
    """What an upstream said before its answer's first byte, as far as a client may hear it."""

    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}


class Relayed(Struct, frozen=True, tag="relayed"):
    """More of an answer in the bytes of the dialect that asked: whole events of a stream,
    or the whole body; `num_tokens` is about how many tokens are in it, None: not known."""

    data: bytes
    num_tokens: int | None = None
