"""The engine of kind `paged`: safetensors models, batched continuously over a paged KV cache.

A request's way: catalog.py finds the folder, engines/pool has it loaded
(loading.py), engines/chat/prompting.py makes token ids, the step thread computes
(step_loop.py), and engines/chat/answer.py turns its tokens into events. See
docs/engines.md#paged.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import msgspec
import structlog

from engines.chat.answer import Answer
from engines.chat.output import ChatOutput
from engines.chat.prepared import completed, constraint_of, output_of
from engines.chat.prompting import (
    check_fits,
    check_length,
    checked_ids,
    prompt_tokens,
    rendered_prompt,
)
from engines.errors import EngineError, Unavailable, Unsupported
from engines.metrics import ModelMetrics, ModelRecorder
from engines.outbox import Mailbox
from engines.paged.catalog import Catalog, context_tokens
from engines.paged.checkpoint import Checkpoint
from engines.paged.config import PagedConfig
from engines.paged.failures import DeviceFault, first_line, without_frames
from engines.paged.loaded_model import LoadedModel
from engines.paged.measuring import metrics_of
from engines.paged.requests import Request
from engines.paged.sequence import Sequence as Running
from engines.paged.watch import Watch
from engines.pool import Budget, Lease, Limits, Need, Pool
from engines.protocol import (
    Embeddings,
    EmbedRequest,
    Event,
    GenerateRequest,
    Health,
    ModelInfo,
    Usage,
)
from engines.rendering import RenderedPrompt

log = structlog.get_logger()

STALLED_SECONDS = 60.0
"""A step that takes this long is no step any more: the engine says that it is not ready."""


class PagedEngine:
    """Implements `Engine`; see engines/protocol.py for what it promises."""

    def __init__(self, name: str, config: PagedConfig, *, models_dir: Path | None = None) -> None:
        self.name = name
        self._config = config
        folder = Path(config.models_dir).expanduser() if config.models_dir else models_dir
        self._catalog = Catalog(folder, config)
        self._pool: Pool[LoadedModel] = Pool(
            self._open,
            limits=Limits(
                keep_alive_seconds=config.keep_alive_seconds, max_waiting=config.max_waiting
            ),
            budget=Budget.of_models(config.max_loaded_models),
        )
        self._is_closed = False
        self._fault = DeviceFault()
        self._loading: dict[str, float] = {}  # how far each load under way is, 0 to 1
        self._recorders: dict[str, ModelRecorder] = {}  # of every model that was ever loaded
        self.num_loads = 0  # models opened so far, for tests and metrics

    async def start(self) -> None:
        """Load the model that the policy names. Raises `Unavailable` when that cannot be."""
        if self._catalog.only is None:
            return
        try:
            await self.load(self._catalog.only)
        except EngineError as error:
            if isinstance(error, Unavailable):
                raise
            raise Unavailable(error.message) from error

    async def close(self) -> None:
        """End every stream with `Unavailable`, then free everything; idempotent."""
        self._is_closed = True
        await self._pool.close()

    async def health(self) -> Health:
        """How many run and wait, over all loaded models."""
        models = self._pool.loaded()
        detail = "closed" if self._is_closed else self._fault.reason or _trouble(models)
        used = [model.cache_used for model in models if model.cache_used is not None]
        return Health(
            ready=not detail,
            detail=detail,
            running=sum(model.num_running for model in models),
            waiting=self._pool.num_waiting + sum(model.num_waiting for model in models),
            cache_used=max(used, default=None),
            needs_new_process=bool(self._fault.reason),
        )

    async def metrics(self) -> Sequence[ModelMetrics]:
        """Every model that was ever loaded."""
        return [
            metrics_of(recorder, self._pool.find(name), name=name, pool=self._pool)
            for name, recorder in self._recorders.items()
        ]

    async def models(self) -> Sequence[ModelInfo]:
        """Every model folder that can be read, loaded or not."""
        infos = await asyncio.to_thread(self._catalog.list)
        return [self._with_state(info) for info in infos]

    async def load(self, model: str, *, keep_alive_seconds: float | None = None) -> ModelInfo:
        """Return when the model is ready."""
        lease = await self._lease(model, keep_alive_seconds, expects_another=True)
        lease.release()
        return self._with_state(await asyncio.to_thread(self._catalog.info, model))

    async def unload(self, model: str) -> None:
        """Free the model after its running requests have finished."""
        await asyncio.to_thread(self._catalog.find, model)
        await self._pool.unload(model)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Run one request, loading its model if needed."""
        began = time.monotonic()
        lease = await self._lease(request.model, request.keep_alive_seconds)
        loading_seconds = time.monotonic() - began
        try:
            model = lease.model
            sequence, output = await self._prepared(model, request)
            record = model.recorder.requests.request(
                prompt_tokens=sequence.num_prompt_tokens,
                max_tokens=sequence.max_tokens,
                arrived_at=began,
                loading_seconds=loading_seconds,
            )
            answer = Answer(
                sequence,
                sequence.payload.mailbox,
                output,
                model.spoken_pieces,
                record=record,
                scores_prompt=request.prompt_logprobs is not None,
            )
            model.submit(sequence)
            try:
                with record:
                    async for event in answer.events():
                        yield event
            finally:
                # No await here: the reader may be gone, and this may run in a cancelled scope.
                model.abort(sequence)
                sequence.payload.mailbox.close()
        finally:
            lease.release()

    async def _prepared(
        self, model: LoadedModel, request: GenerateRequest
    ) -> tuple[Running, ChatOutput]:
        """The request as the step thread takes it, or why it never can be answered."""
        if not model.writes:
            raise Unsupported(f"model {request.model!r} embeds text and writes none", param="model")
        tokens, rendered = await prompt_tokens(model, request, context_tokens=model.context_tokens)
        check_length(tokens, model.context_tokens, request)
        checked_ids(model, list(request.sampling.logit_bias), "logit_bias")
        left = model.context_tokens - len(tokens)
        end_ids = frozenset(model.end_ids)
        payload = Request(
            mailbox=Mailbox(),
            sampling=completed(request.sampling, model.sampling),
            constraint=await constraint_of(model, request, rendered),
            num_logprobs=request.logprobs,
            num_prompt_logprobs=request.prompt_logprobs,
        )
        sequence = Running(
            id=request.id,
            tokens=tokens,
            num_prompt_tokens=len(tokens),
            max_tokens=left if request.max_tokens is None else min(request.max_tokens, left),
            stop_tokens=frozenset() if request.sampling.ignore_eos else end_ids,
            owner=request.owner,
            weight=request.weight,
            priority=request.priority,
            cache_salt=request.cache_salt,
            turning=model.turning,
            payload=payload,
            reads_cache=request.prompt_logprobs is None,  # what is not computed is not scored
        )
        return sequence, await output_of(model, request, rendered)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn each input into a vector of length one."""
        began = time.monotonic()
        lease = await self._lease(request.model, request.keep_alive_seconds)
        try:
            model = lease.model
            for text in request.inputs:
                if isinstance(text, str):
                    check_fits(model, [text], model.embedder.max_tokens, "input")
            inputs = [await _embed_tokens(model, text) for text in request.inputs]
            for tokens in inputs:
                model.embedder.check(tokens, request.dimensions)
            vectors = await model.embed_line.embed(inputs)
            model.recorder.requests.embedded([len(tokens) for tokens in inputs], arrived_at=began)
        finally:
            lease.release()
        if request.dimensions is not None:
            vectors = [_cut(vector, request.dimensions) for vector in vectors]
        return Embeddings(vectors=vectors, usage=Usage(prompt_tokens=sum(map(len, inputs))))

    async def count_tokens(self, request: GenerateRequest) -> int:
        """Prompt tokens that `generate` would count."""
        lease = await self._lease(request.model, None, expects_another=True)
        try:
            tokens, _ = await prompt_tokens(lease.model, request)
            return len(tokens)
        finally:
            lease.release()

    async def render(self, request: GenerateRequest) -> RenderedPrompt:
        """The prompt that `generate` would compute."""
        lease = await self._lease(request.model, None, expects_another=True)
        try:
            model = lease.model
            return await rendered_prompt(
                model, model.tokenizer.pieces, request, context_tokens=model.context_tokens
            )
        finally:
            lease.release()

    async def _lease(
        self, name: str, keep_alive_seconds: float | None, *, expects_another: bool = False
    ) -> Lease[LoadedModel]:
        if self._is_closed:
            raise Unavailable(f"engine {self.name!r} is closed")
        self._check_device()
        if self._catalog.only is not None and name == self._config.model:
            name = self._catalog.only
        if self._pool.find(name) is None:
            await asyncio.to_thread(self._catalog.find, name)
        return await self._pool.lease(
            name, keep_alive_seconds=keep_alive_seconds, expects_another=expects_another
        )

    def _check_device(self) -> None:
        if self._fault.reason:
            raise Unavailable(self._fault.reason)

    async def _open(self, name: str, _: Need) -> LoadedModel:
        """Load a model: what `Pool` calls when one is wanted."""
        self._check_device()
        self._loading[name] = 0.0
        try:
            model = await self._opened(name)
        except EngineError as error:
            self._fault.note(error)
            failure = without_frames(error)
        # The weights that were loaded already are in its frames; the log has all that it says.
        except Exception as error:
            log.exception("model_load_failed", model=name)
            self._fault.note(error)
            without_frames(error)
            failure = Unavailable(f"model {name!r} could not be loaded: {first_line(error)}")
        else:
            self.num_loads += 1
            return model
        finally:
            del self._loading[name]
        raise failure

    async def _opened(self, name: str) -> LoadedModel:
        def progressed(done: float) -> None:  # on the loading thread
            if name in self._loading:
                self._loading[name] = done

        checkpoint = await asyncio.to_thread(self._catalog.checkpoint, name)
        watch = Watch(self._recorder(name, checkpoint), self._fault)
        return await LoadedModel.open(name, checkpoint, self._config, progressed, watch)

    def _recorder(self, name: str, checkpoint: Checkpoint) -> ModelRecorder:
        if name not in self._recorders:
            longest = context_tokens(checkpoint, self._config)
            self._recorders[name] = ModelRecorder(context_tokens=longest)
        return self._recorders[name]

    def _with_state(self, info: ModelInfo) -> ModelInfo:
        model = self._pool.find(info.name)
        if model is None:
            return msgspec.structs.replace(info, loading=self._loading.get(info.name))
        left = self._pool.idle_seconds_left(info.name)
        return msgspec.structs.replace(
            info,
            loaded=True,
            context_tokens=info.context_tokens if model.writes else model.embedder.max_tokens,
            memory_bytes=model.memory_bytes,
            gpu_bytes=model.room.gpu_bytes,
            expires_at=None if left is None else time.time() + left,
        )


def _trouble(models: Sequence[LoadedModel]) -> str:
    for model in models:
        if model.has_failed:
            return f"model {model.name!r} failed: {model.failure}"
        if model.seconds_stalled > STALLED_SECONDS:
            return f"model {model.name!r} has made no step for {model.seconds_stalled:.0f} seconds"
    return ""


async def _embed_tokens(model: LoadedModel, text: str | Sequence[int]) -> Sequence[int]:
    if isinstance(text, str):
        text = model.pooling.prompt + text
        if model.pooling.is_lower_case:
            text = text.lower()
        return await model.tokenize(text, parse_special=False, add_special=True)
    return checked_ids(model, text, "input")


def _cut(vector: Sequence[float], dimensions: int) -> list[float]:
    """The first dimensions, of length one again (Matryoshka, arXiv 2205.13147)."""
    shorter = vector[:dimensions]
    size = sum(number * number for number in shorter) ** 0.5
    return [number / size for number in shorter] if size else list(shorter)
