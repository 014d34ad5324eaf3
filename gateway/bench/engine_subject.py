"""Asks an engine of a policy directly, in this process, with no HTTP between.

The engine is the one that the policy's engines.toml describes, built through
the same registry as in a gateway; no gateway is started.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from msgspec import Struct

from engines.errors import EngineError
from engines.protocol import (
    Engine,
    Finished,
    GenerateRequest,
    Message,
    ReasoningDelta,
    Sampling,
    Started,
    Text,
    TextDelta,
)
from gateway.bench.question import Answer, AnswerNotes, AskFailed, Question, SubjectUnusable, Turn

if TYPE_CHECKING:
    from gateway.settings import Settings


class StartUp(Struct, frozen=True, kw_only=True):
    """Seconds until the engine could answer."""

    start: float  # making and starting the engine
    load: float  # loading the model


class EngineSubject:
    """Implements `Subject` for one model of a started engine."""

    shares_process = True

    def __init__(self, engine: Engine, model: str, start_up: StartUp) -> None:
        self.name = f"engine {engine.name}"
        self.start_up = start_up
        self._engine = engine
        self._model = model

    async def ask(self, question: Question, history: Sequence[Turn]) -> Answer:
        """Ask one question. Raises `AskFailed` with the engine's own code."""
        notes = AnswerNotes()
        has_ended = False
        try:
            async with aclosing(self._engine.generate(self._request(question, history))) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        has_ended = True
                        notes.prompt_tokens = event.usage.prompt_tokens
                        notes.cached_tokens = event.usage.cached_tokens
                        notes.completion_tokens = event.usage.completion_tokens
                    elif isinstance(event, TextDelta | ReasoningDelta):
                        notes.piece(event.text, time.perf_counter())
                    elif not isinstance(event, Started):
                        notes.piece("", time.perf_counter())
        except EngineError as error:
            raise AskFailed(error.code, error.message) from None
        if not has_ended:
            raise AskFailed("cut_off", "the events ended without `Finished`")
        return notes.finished(time.perf_counter())

    def _request(self, question: Question, history: Sequence[Turn]) -> GenerateRequest:
        sampling = Sampling(temperature=question.temperature, ignore_eos=question.ignore_eos)
        named: dict[str, Any] = {
            "id": f"bench-{uuid4().hex}",
            "model": self._model,
            "sampling": sampling,
        }
        if question.token_ids:
            return GenerateRequest(
                **named, prompt=list(question.token_ids), max_tokens=question.max_tokens
            )
        turns = [*history, Turn("user", question.text)]
        messages = [Message(role=turn.role, parts=[Text(turn.text)]) for turn in turns]
        return GenerateRequest(**named, messages=messages, max_tokens=question.max_tokens)


class PolicyEngine(Struct, frozen=True):
    """An engine of a policy that is not started, and its name for the model."""

    engine: Engine
    model: str
    config: Any  # its kind's own Struct


def engine_of(settings: "Settings", name: str, model: str) -> PolicyEngine:
    """The policy's engine of this name. Raises `SubjectUnusable`, `PolicyInvalid`, `PluginInvalid`.

    `model` is a public name that has a target on the engine, else the engine's own name.
    """
    from gateway.engine_registry import EngineSite
    from gateway.gateway import open_gateway

    gateway = open_gateway(settings)
    policy = gateway.policy.engines.get(name)
    if policy is None:
        there_are = ", ".join(sorted(gateway.policy.engines)) or "none"
        raise SubjectUnusable(
            f"engine {name!r} is not in {settings.policy / 'engines.toml'} (there are: {there_are})"
        )
    named = gateway.policy.resolve(model)
    targets = [target for target in (named.targets if named else ()) if target.engine == name]
    own_name = (targets[0].model or named.name) if named and targets else model
    site = EngineSite(models_dir=settings.models_dir, data_dir=settings.data_dir)
    return PolicyEngine(gateway.registry.build(policy, site), own_name, policy.config)


@asynccontextmanager
async def started(engine: Engine, model: str) -> AsyncGenerator[EngineSubject, None]:
    """The engine as a subject, started and with its model loaded. Raises `SubjectUnusable`."""
    try:
        since = time.perf_counter()
        await engine.start()
        was_started = time.perf_counter()
        await engine.load(model)
        start_up = StartUp(start=was_started - since, load=time.perf_counter() - was_started)
        yield EngineSubject(engine, model, start_up)
    except EngineError as error:
        raise SubjectUnusable(f"engine {engine.name!r} did not start: {error.message}") from None
    finally:
        await engine.close()
