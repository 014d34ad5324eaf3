"""The engine kind `remote`: a server that speaks OpenAI's dialect, over HTTP.

A client that speaks the same dialect gets its own request passed on and the
server's own answer back (relay.py; passing.py for paths that nobody here
understands). A request that came in another dialect is put into OpenAI's words
(speaking.py) and its answer into events (hearing.py). Either way one request
is one connection of upstream.py, and closing the stream closes that at once.
"""

from collections.abc import AsyncGenerator, Sequence

import msgspec
from msgspec import Struct

from engines.errors import EngineError, EngineOverloaded, ModelNotFound, Unavailable, Unsupported
from engines.protocol import (
    Embeddings,
    EmbedRequest,
    Event,
    Finished,
    GenerateRequest,
    Health,
    ModelInfo,
    Started,
)
from engines.remote.answers import AnswerReader, Names, broken
from engines.remote.catalog import Catalog
from engines.remote.config import RemoteConfig
from engines.remote.edits import GENERATING, Edits, edited, with_model
from engines.remote.embeddings import read_vectors, spoken_embedding
from engines.remote.hearing import HeardAnswer
from engines.remote.passing import PassedAnswer
from engines.remote.paths import PassedPaths
from engines.remote.refusals import error_of
from engines.remote.relay import RelayedAnswer
from engines.remote.speaking import path_of, spoken
from engines.remote.upstream import Question, Reply, Upstream
from engines.wire import Relayed, UpstreamHead, WireRequest

DIALECT = "openai"
_TYPE_OF_FORM = {"events": "text/event-stream; charset=utf-8", "whole": "application/json"}
_TRACE_HEADERS = ("traceparent", "tracestate")
_STARTED = Started()


class _Exchange(Struct, frozen=True):
    """What is asked, and who reads the answer."""

    question: Question
    reader: AnswerReader
    names: Names
    relays: bool


class RemoteEngine:
    """One upstream as an engine. The event loop owns it; it has no thread of its own."""

    def __init__(self, name: str, config: RemoteConfig) -> None:
        self.name = name
        self.num_running = 0
        self._config = config
        self._paths = PassedPaths(config.passthrough)
        self._edits = Edits(ask_for_usage=config.ask_for_usage, cap_field=config.max_tokens_field)
        self._passed = (*_TRACE_HEADERS, *(header.lower() for header in config.pass_headers))
        self._upstream = Upstream(name, config)
        self._catalog = Catalog(self._upstream, config)

    @property
    def catalog(self) -> Catalog:
        """What is known of the upstream's models."""
        return self._catalog

    @property
    def num_connections(self) -> int:
        """Connections to the upstream, those kept for later too."""
        return self._upstream.num_open

    async def start(self) -> None:
        """Be ready to ask. An upstream that is down does not keep the gateway from starting."""
        await self._upstream.open()
        await self._catalog.open()

    async def close(self) -> None:
        """End every running stream with `Unavailable`; idempotent."""
        await self._catalog.close()
        await self._upstream.close()

    async def health(self) -> Health:
        """Whether the upstream takes connections, and answered when its models were last read."""
        problem = await self._upstream.problem() or self._catalog.problem
        return Health(ready=not problem, detail=problem, running=self.num_running)

    async def models(self) -> Sequence[ModelInfo]:
        """The models of the policy, as far as the upstream has told, with what it says of them."""
        return self._catalog.models()

    async def load(self, model: str, *, keep_alive_seconds: float | None = None) -> ModelInfo:
        """The upstream loads its models itself; this only says whether it may be asked for."""
        if not self._catalog.permits(model):
            raise ModelNotFound(model)
        return self._catalog.info(model)

    async def unload(self, model: str) -> None:
        """Nothing: what an upstream keeps in memory is its own business."""

    def lacks(self, model: str) -> bool:
        """Whether the policy rules it out, or it is not on the upstream's list, if there is one."""
        return self._catalog.lacks(model)

    def relays(self, dialect: str, method: str, path: str) -> bool:
        """Whether this operation may be passed on as its client wrote it."""
        return dialect == DIALECT and self._paths.allow(method, path)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Ask the upstream. Raises any `EngineError`, and never after `Finished`."""
        exchange = self._exchange(request)
        reader = exchange.reader
        reply: Reply | None = None
        self.num_running += 1
        try:
            reply = await self._answered(exchange)
            form = reader.form(reply.content_type)
            yield self._started(reply, form) if exchange.relays else _STARTED
            if form == "whole":
                for event in reader.whole(await reply.whole(self._config.max_answer_bytes)):
                    yield event
                return
            while not reader.is_done and (piece := await reply.piece()):
                for event in reader.feed(piece):
                    yield event
            for event in reader.end():
                yield event
            await reply.linger()
        finally:
            self.num_running -= 1
            if reply is not None:
                reply.close()

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Ask the upstream for vectors. Raises any `EngineError`."""
        wire = request.wire
        self._check(request.model)
        if wire is not None and self.relays(wire.dialect, wire.method, wire.path):
            body, public_model = with_model(wire.body, request.model)
        else:
            wire = None
            body, public_model = spoken_embedding(request), None
        names = self._names(request.model, public_model, relay=wire is not None)
        reader = PassedAnswer(names, self._config.max_event_bytes, only_json=True)
        question = Question(path="embeddings", body=body, headers=self._headers(request.id, wire))
        reply: Reply | None = None
        self.num_running += 1
        try:
            reply = await self._answered(_Exchange(question, reader, names, wire is not None))
            reader.form(reply.content_type)
            answer = await reply.whole(self._config.max_answer_bytes)
        finally:
            self.num_running -= 1
            if reply is not None:
                reply.close()
        relayed, finished = reader.whole(answer)
        assert isinstance(relayed, Relayed)
        assert isinstance(finished, Finished)
        if wire is not None:
            return Embeddings(vectors=(), usage=finished.usage, relayed=relayed.data)
        vectors = read_vectors(answer, len(request.inputs))
        return Embeddings(vectors=vectors, usage=finished.usage)

    async def count_tokens(self, request: GenerateRequest) -> int:
        """Raises `Unsupported`: only the upstream has the model's tokenizer."""
        raise Unsupported(
            f"tokens of {request.model!r} are counted by its upstream, which has no way to be asked"
        )

    def _exchange(self, request: GenerateRequest) -> _Exchange:
        """What to ask for a request. Raises `ModelNotFound`, `EngineOverloaded`, `RequestRefused`,
        `Unavailable`."""
        self._check(request.model)
        wire = request.wire
        limit = self._config.max_event_bytes
        if wire is None or not self.relays(wire.dialect, wire.method, wire.path):
            if wire is not None and wire.is_all:
                raise Unsupported(f"this upstream is not asked for {wire.path!r}", param="model")
            names = self._names(request.model, None, relay=False)
            body = spoken(request, self._edits)
            question = Question(
                path=path_of(request), body=body, headers=self._headers(request.id, None)
            )
            return _Exchange(question, HeardAnswer(request, names, limit), names, relays=False)
        changed = edited(request, wire, self._edits)
        names = self._names(request.model, changed.public_model, relay=True)
        if wire.path in GENERATING:
            reader: AnswerReader = RelayedAnswer(request, changed, names, limit)
        else:
            reader = PassedAnswer(names, limit, only_json=self._paths.is_known(wire.path))
        question = Question(
            method=wire.method,
            path=wire.path,
            query=wire.query,
            body=changed.body,
            headers=self._headers(request.id, wire),
        )
        return _Exchange(question, reader, names, relays=True)

    def _check(self, model: str) -> None:
        if self._upstream.is_closed:
            raise Unavailable(f"engine {self.name!r} is closed")
        if model and not self._catalog.permits(model):
            raise ModelNotFound(model)
        if self.num_running >= self._config.max_connections:
            raise EngineOverloaded(
                f"{self.num_running} requests to this upstream are under way", retry_after=1.0
            )

    async def _answered(self, exchange: _Exchange) -> Reply:
        """The reply to a question, if it is an answer. Raises any `EngineError`."""
        reply = await self._upstream.ask(exchange.question)
        if 200 <= reply.status < 300 and not reply.is_compressed:
            return reply
        try:
            raise await self._refusal(reply, exchange.names)
        finally:
            reply.close()

    async def _refusal(self, reply: Reply, names: Names) -> EngineError:
        if reply.is_compressed:
            return broken("it is compressed, and that was not asked for")
        body = self._upstream.scrubbed(await reply.beginning())
        if reply.status in (401, 403):
            self._upstream.forget_credentials()
        refused = names.refused(body, status=reply.status)
        return error_of(msgspec.structs.replace(refused, headers=reply.headers))

    def _names(self, model: str, public_model: str | None, *, relay: bool) -> Names:
        return Names(
            model=model,
            public_model=public_model,
            with_words=self._config.relay_errors,
            relay=relay,
        )

    def _headers(self, request_id: str, wire: WireRequest | None) -> dict[str, str]:
        # Not `x-request-id`: some servers (llama_cpp.server) refuse one that is no UUID.
        headers = {"x-client-request-id": request_id}
        if wire is not None:
            for name in self._passed:
                if name in wire.headers:
                    headers[name] = wire.headers[name]
        return headers

    def _started(self, reply: Reply, form: str) -> Started:
        returned = {
            name.lower(): reply.headers[name]
            for name in self._config.return_headers
            if name in reply.headers
        }
        told = reply.headers.get("content-type", "") if reply.content_type else ""
        content_type = _TYPE_OF_FORM.get(form) or told
        head = UpstreamHead(status=reply.status, content_type=content_type, headers=returned)
        return Started(head=head)
