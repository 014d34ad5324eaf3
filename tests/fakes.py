"""The only fakes: an engine that follows a script, a clock that moves when told, a ledger.

`ScriptedEngine` passes the same contract suite as the real engines, so a test
that uses it learns nothing that is untrue of them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import datetime

import msgspec

from engines.errors import ContextTooLong, EngineError, ModelNotFound, Unavailable
from engines.protocol import (
    Capability,
    Embeddings,
    EmbedRequest,
    Event,
    Finished,
    FinishReason,
    GenerateRequest,
    Health,
    ModelInfo,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from engines.reranking import Reranking, RerankRequest
from engines.wire import Relayed
from gateway.errors import LedgerUnavailable
from gateway.ledger import ApiKey, KeyChange


class FakeClock:
    """Seconds that pass when `advance` is called."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeLedger:
    """The key records of a ledger, in memory. Counts reads; fails and waits when told."""

    was_opened = True

    def __init__(self) -> None:
        self.records: dict[str, ApiKey] = {}
        self.reads = 0
        self.checks = 0
        self.last_change = 0
        self.is_down = False
        self.hold: Hold | None = None  # every read waits here, after it has read
        self.check_hold: Hold | None = None  # and every question for the last change here

    async def insert_key(self, key: ApiKey) -> None:
        self._check()
        self.records[key.id] = key

    async def key(self, key_id: str) -> ApiKey | None:
        self._check()
        self.reads += 1
        found = self.records.get(key_id)
        if self.hold is not None:
            await self.hold.wait()
        return found

    async def keys(self, team: str | None = None) -> list[ApiKey]:
        self._check()
        return [key for key in self.records.values() if team in (None, key.team)]

    async def change_key(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> KeyChange | None:
        self._check()
        before = self.records.get(key_id)
        if before is None:
            return None
        after = change(before)
        if after != before:
            self.last_change += 1
            after = msgspec.structs.replace(after, change=self.last_change)
            self.records[key_id] = after
        return KeyChange(before, after)

    async def last_key_change(self) -> int:
        self._check()
        self.checks += 1
        last = self.last_change
        if self.check_hold is not None:
            await self.check_hold.wait()
        return last

    async def changed_keys(self, after: int) -> frozenset[str]:
        self._check()
        return frozenset(key.id for key in self.records.values() if key.change > after)

    async def touch_keys(
        self, used: Mapping[str, datetime], previous_used: Mapping[str, datetime]
    ) -> None:
        self._check()
        for field, times in (("last_used_at", used), ("previous_used_at", previous_used)):
            for key_id in times.keys() & self.records.keys():
                self._replace(key_id, **{field: times[key_id]})

    def _replace(self, key_id: str, **changes: object) -> None:
        self.records[key_id] = msgspec.structs.replace(self.records[key_id], **changes)

    def _check(self) -> None:
        if self.is_down:
            raise LedgerUnavailable


class Hold:
    """A script step that waits until the test calls `release`; `reached` says it got there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    async def wait(self) -> None:
        self.reached.set()
        await self._released.wait()


Step = Event | EngineError | Hold | str | float
Script = Sequence[Step] | Callable[[GenerateRequest], Sequence[Step]]


class ScriptedEngine:
    """An engine whose answers are written down beforehand.

    A script is a list of steps: a string is a text token, an error is raised, a
    `Hold` waits, a number is so many seconds (see virtual_time.py), an event is
    passed on. `Started` and `Finished` are added where the script has none. A word
    is a token when prompts are counted.
    """

    def __init__(
        self,
        script: Script = ("hello", " there"),
        *,
        name: str = "scripted",
        model_names: Sequence[str] = ("scripted-model",),
        context_tokens: int = 100,
    ) -> None:
        self.name = name
        self.requests: list[GenerateRequest] = []
        self.embed_requests: list[EmbedRequest] = []
        self.rerank_requests: list[RerankRequest] = []
        self.num_loads = 0
        self.kept_alive: list[float] = []  # what loads said, if they said something
        self.running = 0
        self.num_closed_early = 0
        self._script = script
        self._model_names = list(model_names)
        self._context_tokens = context_tokens
        self._loaded: set[str] = set()
        self._is_closed = asyncio.Event()
        self._idle = asyncio.Event()

    @classmethod
    def saying(cls, text: str, **options: object) -> "ScriptedEngine":
        """An engine that answers everything with this text, a word at a time."""
        words = text.split(" ")
        tokens = [word if i == 0 else " " + word for i, word in enumerate(words)]
        return cls(tokens, **options)  # type: ignore[arg-type]

    async def start(self) -> None:
        self._is_closed.clear()

    async def close(self) -> None:
        self._is_closed.set()

    async def health(self) -> Health:
        return Health(ready=not self._is_closed.is_set(), running=self.running)

    async def models(self) -> Sequence[ModelInfo]:
        return [self._info(name) for name in self._model_names]

    async def load(self, model: str, *, keep_alive_seconds: float | None = None) -> ModelInfo:
        if keep_alive_seconds is not None:
            self.kept_alive.append(keep_alive_seconds)
        if not {model, f"{model}:latest"} & {*self._model_names}:
            raise ModelNotFound(model)
        if model not in self._loaded:
            self._loaded.add(model)
            self.num_loads += 1
            await asyncio.sleep(0)
        return self._info(model)

    async def unload(self, model: str) -> None:
        while self.running:
            self._idle.clear()
            await self._idle.wait()
        self._loaded.discard(model)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        if self._is_closed.is_set():
            raise Unavailable(f"engine {self.name!r} is closed")
        await self.load(request.model)
        prompt_tokens = await self.count_tokens(request)
        if prompt_tokens >= self._context_tokens:
            raise ContextTooLong(prompt_tokens=prompt_tokens, context_tokens=self._context_tokens)
        self.running += 1
        finished = False
        try:
            async for event in self._play(request, prompt_tokens):
                finished = isinstance(event, Finished)
                yield event
        finally:
            self.running -= 1
            self.num_closed_early += not finished
            self._idle.set()

    async def embed(self, request: EmbedRequest) -> Embeddings:
        self.embed_requests.append(request)
        await self.load(request.model)
        size = request.dimensions or 4
        vectors = [[1.0 / size**0.5] * size for _ in request.inputs]
        tokens = sum(
            len(item.split()) if isinstance(item, str) else len(item) for item in request.inputs
        )
        return Embeddings(vectors=vectors, usage=Usage(prompt_tokens=tokens))

    async def rerank(self, request: RerankRequest) -> Reranking:
        """Scores by how many of a document's words are the query's."""
        self.rerank_requests.append(request)
        await self.load(request.model)
        asked = set(request.query.split())
        documents = [document.split() for document in request.documents]
        scores = [sum(word in asked for word in words) / len(words) for words in documents]
        tokens = sum(len(words) + len(asked) for words in documents)
        return Reranking(scores=scores, usage=Usage(prompt_tokens=tokens))

    async def count_tokens(self, request: GenerateRequest) -> int:
        if request.prompt is None:
            return sum(len(message.text.split()) for message in request.messages)
        if isinstance(request.prompt, str):
            return len(request.prompt.split())
        return len(request.prompt)

    async def _play(
        self, request: GenerateRequest, prompt_tokens: int
    ) -> AsyncGenerator[Event, None]:
        steps = list(self._script(request) if callable(self._script) else self._script)
        if not any(isinstance(step, Started) for step in steps):
            yield Started(prompt_tokens=prompt_tokens)
        answer, called = _Answer(request), False
        for step in steps:
            await self._pause(step)
            if isinstance(step, EngineError):
                raise step
            if isinstance(step, Finished):
                yield step
                return
            if isinstance(step, Started | ReasoningDelta | ToolCallDelta | Relayed):
                called = called or isinstance(step, ToolCallDelta)
                yield step
            elif not isinstance(step, Hold | float):
                if (released := answer.speak(step)) is not None:
                    yield released
                if answer.reason is not None:
                    break
        if (rest := answer.rest()) is not None:
            yield rest
        yield Finished(
            reason=answer.reason or (FinishReason.TOOL_CALLS if called else FinishReason.STOP),
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=answer.num_tokens),
            stop=answer.stop,
        )

    async def _pause(self, step: Step) -> None:
        """Let others run, wait for a `Hold`, and notice that the engine was closed."""
        await asyncio.sleep(step if isinstance(step, float) else 0)
        if isinstance(step, Hold):
            waiting = asyncio.ensure_future(step.wait())
            closed = asyncio.ensure_future(self._is_closed.wait())
            try:
                await asyncio.wait({waiting, closed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                closed.cancel()
        if self._is_closed.is_set():
            raise Unavailable(f"engine {self.name!r} was closed")

    def _info(self, name: str) -> ModelInfo:
        return ModelInfo(
            name=name,
            capabilities=frozenset({Capability.CHAT, Capability.COMPLETE, Capability.EMBED}),
            context_tokens=self._context_tokens,
            loaded=name in self._loaded,
        )


class _Answer:
    """What was said so far; holds back what may become a stop string."""

    def __init__(self, request: GenerateRequest) -> None:
        self.num_tokens = 0
        self.reason: FinishReason | None = None
        self.stop: str | None = None
        self._request = request
        self._text = ""
        self._sent = 0

    def speak(self, step: TextDelta | str) -> TextDelta | None:
        delta = step if isinstance(step, TextDelta) else self._delta(step)
        self._text += delta.text
        self.num_tokens += 1
        found = _earliest(self._text, self._request.stop)
        if found is not None:
            at, self.stop = found
            self.reason = FinishReason.STOP
            self._text = self._text[:at]
            return self._release(delta, at)
        if self.num_tokens == self._request.max_tokens:
            self.reason = FinishReason.LENGTH
        return self._release(delta, len(self._text) - _held_back(self._text, self._request.stop))

    def rest(self) -> TextDelta | None:
        return self._release(TextDelta(text=""), len(self._text))

    def _release(self, delta: TextDelta, to: int) -> TextDelta | None:
        if to <= self._sent:
            return None
        released = msgspec.structs.replace(delta, text=self._text[self._sent : to])
        self._sent = to
        return released

    def _delta(self, text: str) -> TextDelta:
        if self._request.logprobs is None:
            return TextDelta(text=text)
        return TextDelta(text=text, logprobs=[TokenLogprob(token=text.encode(), logprob=-0.5)])


def _earliest(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    return min(found) if found else None


def _held_back(text: str, stops: Sequence[str]) -> int:
    """How many last characters of `text` may be the beginning of a stop string."""
    lengths = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return max(lengths, default=0)


def text_of(events: Sequence[Event]) -> str:
    """The answer text of a stream, joined."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))
