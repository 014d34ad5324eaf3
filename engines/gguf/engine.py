"""The engine of kind `gguf`: llama.cpp models on this machine, many requests at once.

A request's way: library.py finds the file, engines/pool has it loaded by loader.py (probe.py
saw it first), engines/chat/prompting.py makes token ids, the model's step thread
answers, and engines/chat/answer.py turns its tokens into events. See docs/engines.md#gguf.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import msgspec

from engines.chat.answer import Answer
from engines.chat.output import ChatOutput
from engines.chat.prepared import completed, constraint_of, output_of
from engines.chat.prompting import check_length, checked_ids, prompt_tokens, rendered_prompt
from engines.errors import Unavailable, Unsupported
from engines.gguf.catalog import Catalog, Version
from engines.gguf.config import GgufConfig
from engines.gguf.librarian import Librarian
from engines.gguf.loaded_model import LoadedModel
from engines.gguf.loader import Loader
from engines.gguf.measuring import metrics_of
from engines.gguf.other_template import rendered_with
from engines.gguf.pooled import embedded, reranked
from engines.gguf.probe import default_memory
from engines.gguf.sequence import Sequence as Running
from engines.metrics import ModelMetrics, RecordedRequest
from engines.modelfile_text import Instruction
from engines.outbox import Mailbox
from engines.pool import Lease, Limits, Pool
from engines.protocol import (
    Embeddings,
    EmbedRequest,
    Event,
    GenerateRequest,
    Health,
    ModelDetails,
    ModelInfo,
    Progress,
    Started,
)
from engines.rendering import RenderedPrompt
from engines.reranking import Reranking, RerankRequest


class GgufEngine:
    """Implements `Engine` and `ModelLibrary`; see engines/protocol.py for what it promises."""

    def __init__(
        self,
        name: str,
        config: GgufConfig,
        *,
        models_dir: Path | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.name = name
        self._config = config
        folder = Path(config.models_dir).expanduser() if config.models_dir else models_dir
        self._catalog = Catalog(folder, config)
        self._librarian = Librarian(self._catalog, config)
        self._loader = Loader(self._catalog, config, data_dir or default_memory(os.environ))
        self._pool = Pool(
            self._loader.open,
            limits=Limits(
                keep_alive_seconds=config.keep_alive_seconds,
                max_waiting=config.max_waiting,
                min_residency_seconds=config.min_residency_seconds,
            ),
            budget=self._loader.budget(),
        )
        self._is_closed = False
        self._versions: dict[str, Version] = {}

    @property
    def num_loads(self) -> int:
        """Models opened so far, for tests."""
        return self._loader.num_loads

    async def start(self) -> None:
        """Nothing to wait for: models are loaded when they are asked for."""

    async def close(self) -> None:
        """End every stream with `Unavailable`, then free everything; idempotent."""
        self._is_closed = True
        self._loader.close()
        await self._pool.close()

    async def health(self) -> Health:
        """How many run and wait, over all loaded models."""
        models = self._pool.loaded()
        return Health(
            ready=not self._is_closed,
            detail="closed" if self._is_closed else "",
            running=sum(model.num_running for model in models),
            waiting=self._pool.num_waiting + sum(model.line.num_waiting for model in models),
            cache_used=max((model.cache_used for model in models), default=None),
        )

    async def metrics(self) -> Sequence[ModelMetrics]:
        """Every model that was ever loaded."""
        return [
            metrics_of(recorder, self._pool.find(name), name=name, pool=self._pool)
            for name, recorder in self._loader.recorders.items()
        ]

    async def models(self) -> Sequence[ModelInfo]:
        """Every model file that can be read, loaded or not."""
        infos = await asyncio.to_thread(self._catalog.list)
        return [self._with_state(info) for info in infos]

    async def load(self, model: str, *, keep_alive_seconds: float | None = None) -> ModelInfo:
        """Return when the model is ready."""
        lease = await self._lease(model, keep_alive_seconds, expects_another=True)
        lease.release()
        known = await asyncio.to_thread(self._catalog.look_up, model)
        return self._with_state(known.info)

    async def unload(self, model: str) -> None:
        """Free the model after its running requests have finished."""
        version = await asyncio.to_thread(self._catalog.version, model)
        await self._pool.unload(version.name)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Run one request, loading its model if needed."""
        began = time.monotonic()
        lease = await self._lease(request.model, request.keep_alive_seconds)
        loading_seconds = time.monotonic() - began
        try:
            model = lease.model
            sequence, output = await self._prepared(model, model.recipe.applied(request))
            record = model.recorder.requests.request(
                prompt_tokens=len(sequence.tokens),
                max_tokens=sequence.max_tokens,
                arrived_at=began,
                loading_seconds=loading_seconds,
            )
            async for event in self._answered(model, sequence, output, record):
                yield event
        finally:
            lease.release()

    async def _answered(
        self, model: LoadedModel, sequence: Running, output: ChatOutput, record: RecordedRequest
    ) -> AsyncGenerator[Event, None]:
        place = model.line.join(num_running=model.num_running)
        answer = Answer(
            sequence,
            sequence.mailbox,
            output,
            model.spoken_pieces,
            record=record,
        )
        model.submit(sequence)
        try:
            with record:
                async for event in answer.events():
                    if isinstance(event, Started):
                        place.leave()
                    yield event
        finally:
            # No await here: the reader may be gone, and this may run in a cancelled scope.
            place.leave()
            model.cancel(sequence)
            sequence.mailbox.close()
            model.line.served(time.monotonic() - (sequence.admitted_at or time.monotonic()))

    async def _prepared(
        self, model: LoadedModel, request: GenerateRequest
    ) -> tuple[Running, ChatOutput]:
        """The request as the step thread takes it, or why it never can be answered."""
        if model.generation is None:
            does = "scores" if model.scores_texts else "embeds"
            raise Unsupported(f"model {request.model!r} {does} text and writes none", param="model")
        if request.prompt_logprobs is not None:
            raise Unsupported(
                "this model's engine does not score prompts: leave echo or logprobs out, or ask a "
                "model that an engine of kind paged runs",
                param="prompt_logprobs",
            )
        reading = model.reading(request.cache_salt)
        context_tokens = model.generation.context_tokens
        tokens, rendered = await prompt_tokens(reading, request, context_tokens=context_tokens)
        check_length(tokens, context_tokens, request)
        checked_ids(model, list(request.sampling.logit_bias), "logit_bias")
        left = context_tokens - len(tokens)
        sequence = Running(
            tokens=tokens,
            max_tokens=left if request.max_tokens is None else min(request.max_tokens, left),
            mailbox=Mailbox(),
            sampling=completed(request.sampling, model.sampling),
            constraint=await constraint_of(model, request, rendered),
            num_logprobs=request.logprobs,
            owner=request.owner,
            weight=request.weight,
            priority=request.priority,
            cache_salt=request.cache_salt,
            images=await reading.encoded(),
        )
        return sequence, await output_of(model, request, rendered)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn each input into a vector of length one."""
        began = time.monotonic()
        lease = await self._lease(request.model, request.keep_alive_seconds)
        try:
            embeddings, lengths = await embedded(lease.model, request)
            lease.model.recorder.requests.embedded(lengths, arrived_at=began)
            return embeddings
        finally:
            lease.release()

    async def rerank(self, request: RerankRequest) -> Reranking:
        """Score each document by how well it answers the query."""
        began = time.monotonic()
        lease = await self._lease(request.model, request.keep_alive_seconds)
        try:
            reranking, lengths = await reranked(lease.model, request)
            lease.model.recorder.requests.embedded(lengths, arrived_at=began)
            return reranking
        finally:
            lease.release()

    async def count_tokens(self, request: GenerateRequest) -> int:
        """Prompt tokens that `generate` would count."""
        lease = await self._lease(request.model, None, expects_another=True)
        try:
            model = lease.model
            reading = model.reading(request.cache_salt)
            tokens, _ = await prompt_tokens(reading, model.recipe.applied(request))
            return len(tokens)
        finally:
            lease.release()

    def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        """Fetch a model by name; see engines/gguf/pull.py for what may be one."""
        return self._librarian.pull(name)

    def push(self, name: str) -> AsyncGenerator[Progress, None]:
        """Send a model to the registry that its name begins with."""
        return self._librarian.push(name)

    def create(
        self, name: str, modelfile: str | Sequence[Instruction], *, quantize: str | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Make a model from a Modelfile."""
        return self._librarian.create(name, modelfile, quantize=quantize)

    async def copy(self, source: str, target: str) -> None:
        """Give a model another name."""
        await self._librarian.copy(source, target)

    async def delete(self, name: str) -> None:
        """Remove a name; who is being answered by the model is answered to the end."""
        self._pool.retire(await self._librarian.delete(name))

    async def show(self, name: str) -> ModelDetails:
        """Say everything that a model's files say."""
        details = await self._librarian.show(name)
        return msgspec.structs.replace(details, info=self._with_state(details.info))

    async def listed_name(self, name: str) -> str | None:
        """How the model that `name` means is listed."""
        return await self._librarian.listed_name(name)

    async def has_blob(self, digest: str) -> bool:
        """Whether a file of this digest is there, for `create`."""
        return await self._librarian.has_blob(digest)

    async def add_file(self, path: str, digest: str | None = None) -> str:
        """Copy a file of this machine into the library as a blob; returns its digest."""
        return await self._librarian.add_file(path, digest)

    async def render(self, request: GenerateRequest) -> RenderedPrompt:
        """The prompt that `generate` would compute."""
        lease = await self._lease(request.model, None, expects_another=True)
        try:
            model = lease.model
            shape = model.generation or model.embedding
            return await rendered_prompt(
                model, model.vocabulary.pieces, request, context_tokens=shape.context_tokens
            )
        finally:
            lease.release()

    async def rendered_with(self, template: str, request: GenerateRequest) -> str:
        """The prompt that a Go template makes of the request's messages."""
        lease = await self._lease(request.model, None, expects_another=True)
        try:
            applied = lease.model.recipe.applied(request)
            return await asyncio.to_thread(rendered_with, lease.model, template, applied)
        finally:
            lease.release()

    async def _lease(
        self, name: str, keep_alive_seconds: float | None, *, expects_another: bool = False
    ) -> Lease[LoadedModel]:
        if self._is_closed:
            raise Unavailable(f"engine {self.name!r} is closed")
        version = await asyncio.to_thread(self._catalog.version, name)
        name = version.name
        if self._versions.setdefault(name, version) != version:
            self._pool.retire(name)
            self._versions[name] = version
        return await self._pool.lease(
            name,
            keep_alive_seconds=keep_alive_seconds,
            needs=None if self._pool.serves(name) else await self._loader.needs(name),
            default_keep_alive_seconds=self._loader.config_of(name).keep_alive_seconds,
            expects_another=expects_another,
        )

    def _with_state(self, info: ModelInfo) -> ModelInfo:
        model = self._pool.find(info.name)
        if model is None:
            return msgspec.structs.replace(info, loading=self._loader.loading.get(info.name))
        left = self._pool.idle_seconds_left(info.name)
        return msgspec.structs.replace(
            info,
            loaded=True,
            memory_bytes=model.memory_bytes,
            gpu_bytes=model.room.gpu_bytes,
            expires_at=None if left is None else time.time() + left,
        )
