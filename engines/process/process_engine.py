"""The engine that the gateway sees, which runs in a child process."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from engines.errors import EngineError
from engines.metrics import ModelMetrics
from engines.modelfile_text import Instruction
from engines.process.library_questions import (
    AddFile,
    Copy,
    Create,
    Delete,
    HasBlob,
    Job,
    ListedName,
    Pull,
    Push,
    Show,
)
from engines.process.spec import EngineSpec
from engines.process.supervisor import Supervision, Supervisor, asked_in_time
from engines.process.wire import (
    CountTokens,
    Embed,
    Load,
    Metrics,
    Models,
    Render,
    Rerank,
    Unload,
)
from engines.protocol import (
    Embeddings,
    EmbedRequest,
    Event,
    GenerateRequest,
    Health,
    ModelDetails,
    ModelInfo,
    Progress,
)
from engines.rendering import RenderedPrompt
from engines.reranking import Reranking, RerankRequest

_HEALTH_SECONDS = 2.0


class ProcessEngine:
    """Implements `Engine`; see engines/protocol.py for what it promises.

    While its process is being restarted every method that needs it raises
    `Unavailable` at once, with `retry_after`.
    """

    def __init__(
        self, name: str, spec: EngineSpec, *, supervision: Supervision | None = None
    ) -> None:
        self.name = name
        self._supervisor = Supervisor(name, spec, supervision or Supervision())

    @property
    def pid(self) -> int | None:
        """The process that runs the engine; None while there is none that is ready."""
        child = self._supervisor.child
        return child.pid if child is not None else None

    async def start(self) -> None:
        """Return when the child is ready. Raises `Unavailable` with its last words."""
        await self._supervisor.start()

    async def close(self) -> None:
        """End every stream with `Unavailable`, then the child; idempotent."""
        await self._supervisor.close()

    async def health(self) -> Health:
        """How the engine says it is, or why it cannot say anything."""
        child = self._supervisor.child
        if child is None:
            return Health(ready=False, detail=self._supervisor.why_not)
        try:
            health = await asked_in_time(child, _HEALTH_SECONDS)
        except EngineError:
            return Health(ready=False, detail=self._supervisor.why_not)
        return health or Health(
            ready=False,
            detail=f"its process has not answered for {_HEALTH_SECONDS:g} seconds",
            running=child.num_calls,
        )

    async def metrics(self) -> Sequence[ModelMetrics]:
        """What the child has counted since it was started; a new child begins anew."""
        return await self._supervisor.running().ask(Metrics(), list[ModelMetrics])

    async def models(self) -> Sequence[ModelInfo]:
        """Every model, as the child knows them."""
        return await self._supervisor.running().ask(Models(), list[ModelInfo])

    async def load(self, model: str, *, keep_alive_seconds: float | None = None) -> ModelInfo:
        """Return when the model is ready; after a restart, it is loaded when next asked for."""
        return await self._supervisor.running().ask(Load(model, keep_alive_seconds), ModelInfo)

    async def unload(self, model: str) -> None:
        """Free the model after its running requests have finished."""
        await self._supervisor.running().ask(Unload(model), type(None))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        """Run one request, loading its model if needed."""
        async with aclosing(self._supervisor.running().generate(request)) as events:
            async for event in events:
                yield event

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Turn each input into a vector."""
        return await self._supervisor.running().ask(Embed(request), Embeddings)

    async def rerank(self, request: RerankRequest) -> Reranking:
        """Score texts. `Unsupported` if the engine has no models for that."""
        return await self._supervisor.running().ask(Rerank(request), Reranking)

    async def count_tokens(self, request: GenerateRequest) -> int:
        """Prompt tokens that `generate` would count."""
        return await self._supervisor.running().ask(CountTokens(request), int)

    # `ModelLibrary`, for engines that keep model files; of others it is all `Unsupported`.

    def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        """Fetch a model by name."""
        return self._performed(Pull(name))

    def push(self, name: str) -> AsyncGenerator[Progress, None]:
        """Send a model to a registry."""
        return self._performed(Push(name))

    def create(
        self, name: str, modelfile: str | Sequence[Instruction], *, quantize: str | None = None
    ) -> AsyncGenerator[Progress, None]:
        """Make a model from a Modelfile."""
        return self._performed(Create(name, modelfile, quantize))

    async def copy(self, source: str, target: str) -> None:
        """Give a model another name."""
        await self._supervisor.running().ask(Copy(source, target), type(None))

    async def delete(self, name: str) -> None:
        """Remove a name."""
        await self._supervisor.running().ask(Delete(name), type(None))

    async def show(self, name: str) -> ModelDetails:
        """Say everything that a model's files say."""
        return await self._supervisor.running().ask(Show(name), ModelDetails)

    async def listed_name(self, name: str) -> str | None:
        """How the model that `name` means is listed."""
        return await self._supervisor.running().ask(ListedName(name), str) or None

    async def has_blob(self, digest: str) -> bool:
        """Whether a file of this digest is there."""
        return await self._supervisor.running().ask(HasBlob(digest), bool)

    async def add_file(self, path: str, digest: str | None = None) -> str:
        """Copy a file of this machine into the library; returns its digest."""
        return await self._supervisor.running().ask(AddFile(path, digest), str)

    async def _performed(self, job: Job) -> AsyncGenerator[Progress, None]:
        async with aclosing(self._supervisor.running().perform(job)) as steps:
            async for step in steps:
                yield step

    async def render(self, request: GenerateRequest) -> RenderedPrompt:
        """The prompt that `generate` would compute. `Unsupported` if the engine cannot tell."""
        return await self._supervisor.running().ask(Render(request), RenderedPrompt)
