"""Which models an upstream has: its own list, read again now and then, and the policy's names.

The list is only for telling people, and for the health of the engine. Whether
a model may be asked for is decided by the names and globs of the policy alone,
so an upstream that is down, or that has no list, changes nothing about that.
"""

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from engines.errors import EngineError, Unavailable
from engines.protocol import Capability, ModelInfo
from engines.remote.config import RemoteConfig
from engines.remote.refusals import Refused, error_of
from engines.remote.upstream import Question, Upstream

log = structlog.get_logger()

MAX_LIST_BYTES = 8 * 1024 * 1024
MAX_MODELS = 10_000
MAX_NAME = 200
FIRST_READ_SECONDS = 3.0
NOT_READY_SECONDS = 5.0  # until an upstream that cannot be used is looked at again

_QUESTION = Question(method="GET", path="models")


class _Meta(Struct, frozen=True):
    """llama-server's."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None


class _Entry(Struct, frozen=True):
    """A model as Penstock, vLLM, llama-server and others list it."""

    id: str
    created: float | None = None
    context_length: int | None = None
    max_model_len: int | None = None
    meta: _Meta | None = None
    capabilities: Any = None

    @property
    def context_tokens(self) -> int:
        meta = self.meta or _Meta()
        return self.context_length or self.max_model_len or meta.n_ctx or meta.n_ctx_train or 0


class _List(Struct, frozen=True):
    data: Sequence[msgspec.Raw]


class Catalog:
    """The models of one upstream. The event loop owns it."""

    def __init__(self, upstream: Upstream, config: RemoteConfig) -> None:
        self.problem = ""  # why the upstream cannot be used, as far as reading the list tells
        self.num_reads = 0
        self._upstream = upstream
        self._config = config
        self._told: Mapping[str, _Entry] = {}
        self._allowed = [_glob(text) for text in config.models if not text.startswith("!")]
        self._denied = [_glob(text[1:]) for text in config.models if text.startswith("!")]
        self._names = [
            text for text in config.models if "*" not in text and not text.startswith("!")
        ]
        self._was_read = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the list, and go on reading it; an upstream that is slow is not waited for."""
        if self._config.refresh_seconds <= 0:
            return
        self._reader = asyncio.create_task(self._read_again_and_again())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_READ_SECONDS):
                await self._was_read.wait()

    async def close(self) -> None:
        """Stop reading; idempotent."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def permits(self, model: str) -> bool:
        """May this model be asked for?"""
        if any(glob.fullmatch(model) for glob in self._denied):
            return False
        return any(glob.fullmatch(model) for glob in self._allowed)

    def lacks(self, model: str) -> bool:
        """Is it known that the upstream has no such model? A list cut short says nothing."""
        if not self.permits(model):
            return True
        if not self._told or len(self._told) >= MAX_MODELS or len(model) > MAX_NAME:
            return False
        # Ollama gives a name without a tag this one.
        return not {model, f"{model}:latest"} & (self._told.keys() | set(self._names))

    def models(self) -> Sequence[ModelInfo]:
        """The policy's names, and what the upstream has for its globs."""
        told = [name for name in self._told if self.permits(name)]
        return [self.info(name) for name in dict.fromkeys([*self._names, *told])]

    def info(self, name: str) -> ModelInfo:
        """What is known about a model."""
        entry = self._told.get(name) or _Entry(name)
        return ModelInfo(
            name=name,
            capabilities=frozenset(self._config.capabilities.get(name, ()))
            or _capabilities(entry.capabilities),
            context_tokens=self._config.context_tokens.get(name) or entry.context_tokens,
            loaded=True,
            modified_at=entry.created,
        )

    async def read(self) -> None:
        """Read the upstream's list once; keeps the last one when that fails."""
        try:
            self._told = await self._list()
            problem = ""
        except EngineError as error:
            problem = error.message if isinstance(error, Unavailable) else ""
        except TimeoutError:
            problem = "the upstream did not tell its models in time"
        self.num_reads += 1
        self._was_read.set()
        if problem and not self.problem:
            log.warning("upstream_not_ready", engine=self._upstream.name, reason=problem)
        elif self.problem and not problem:
            log.info("upstream_ready", engine=self._upstream.name, models=len(self._told))
        self.problem = problem

    async def _read_again_and_again(self) -> None:
        while True:
            try:
                await self.read()
            except Exception:
                # A list of a kind that nobody foresaw must not end the reading for good.
                log.exception("upstream_models_unread", engine=self._upstream.name)
            pause = self._config.refresh_seconds
            await asyncio.sleep(min(pause, NOT_READY_SECONDS) if self.problem else pause)

    async def _list(self) -> Mapping[str, _Entry]:
        async with asyncio.timeout(self._config.connect_seconds + self._config.idle_seconds):
            reply = await self._upstream.ask(_QUESTION)
            try:
                if reply.status != 200:
                    body = await reply.beginning()
                    raise error_of(
                        Refused(status=reply.status, headers=reply.headers, body=body, model="")
                    )
                body = await reply.whole(MAX_LIST_BYTES)
            finally:
                reply.close()
        try:
            raw = msgspec.json.decode(body, type=_List).data[:MAX_MODELS]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}  # it answers, but has no list
        entries = [entry for item in raw if (entry := _entry(item)) is not None]
        return {entry.id: entry for entry in entries if 0 < len(entry.id) <= MAX_NAME}


def _entry(item: msgspec.Raw) -> _Entry | None:
    try:
        return msgspec.json.decode(item, type=_Entry)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        # Other fields of other servers may have the same names and mean something else.
        return _Entry(msgspec.json.decode(item, type=dict[str, Any]).get("id", ""))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _capabilities(told: object) -> frozenset[Capability]:
    words = {str(word) for word in told} if isinstance(told, list) else set[str]()  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return frozenset(one for one in Capability if one.value in words)


def _glob(text: str) -> re.Pattern[str]:
    # Clients choose what this is matched with: groups that give nothing back once they
    # have matched keep it from trying every way to share the text out among the stars.
    first, *middle = map(re.escape, text.split("*"))
    if not middle:
        return re.compile(first)
    *middle, last = middle
    found = "".join(f"(?>.*?{piece})" for piece in middle)
    return re.compile(f"{first}{found}.*{last}", re.DOTALL)
