"""A model under a policy: the policy's engines, opened in this process.

A prompt takes the way of a call from where its body is decoded: the same
decoder, the model's name resolved, `prepare`, `route`, dispatch. What lets a
call in, counts it or tells of it does not run: nobody calls. So no key is
needed, no limit is used up, and no shared ledger or store is touched.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from engines.errors import EngineError, ModelNotFound, RequestRefused
from engines.protocol import (
    Event,
    Finished,
    GenerateRequest,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from engines.rendering import RenderedPrompt, Renders
from gateway import pipeline
from gateway.api.bodies import decode_body
from gateway.api.openai import chat, completions, embeddings
from gateway.call import Call, Principal, Target, new_call_id
from gateway.engine_registry import EngineStartFailed
from gateway.errors import BadRequest, Refusal, problem_of
from gateway.gateway import Gateway, open_gateway
from gateway.hooks import PluginInvalid
from gateway.parity.answer import Answer, Failure, Notes
from gateway.parity.problems import CannotCompare
from gateway.parity.prompt_set import CHAT, EMBEDDINGS, Prompt
from gateway.parity.side import Manner
from gateway.policy import ModelPolicy, Policy, PolicyInvalid
from gateway.policy.problems import way_out
from gateway.settings import Settings, SettingsInvalid, read_settings

NOBODY_OUTSIDE = Principal(name="parity", team="-", role="admin")
HOOKS = ("register_engines", "prepare", "route")
# What this machine has; the other settings name what is shared with a gateway that runs.
_KEPT_SETTINGS = ("PENSTOCK_DATA_DIR", "PENSTOCK_MODELS_DIR", "XDG_DATA_HOME")
_CHAT = msgspec.json.Decoder(chat.CreateChatCompletion)
_COMPLETION = msgspec.json.Decoder(completions.CreateCompletion)
_EMBEDDING = msgspec.json.Decoder(embeddings.CreateEmbedding)

OpenGateway = Callable[[Settings], Gateway]


class PolicySide:
    """One policy directory and one of its models."""

    def __init__(
        self,
        directory: Path,
        model: str,
        *,
        name: str,
        scratch: Path,
        opening: OpenGateway = open_gateway,
    ) -> None:
        """Read the policy. Raises `CannotCompare` with every problem in it.

        `scratch` is an empty folder of its own, which the caller removes.
        """
        self.name = name
        self.model = model
        try:
            self._gateway = opening(settings_for(directory, scratch))
        except PolicyInvalid as error:
            problems = "\n  ".join(error.problems)
            raise CannotCompare(f"policy {name} does not hold:\n  {problems}") from None
        except (PluginInvalid, SettingsInvalid) as error:
            raise CannotCompare(f"policy {name}: {error}") from None
        gateway = self._gateway
        gateway.serving = msgspec.structs.replace(
            gateway.serving,
            hooks=gateway.hooks.only(*HOOKS),
            policy=_asking_once(gateway.policy),
        )

    async def check(self, prompts: Sequence[Prompt]) -> None:
        """Is the model in the policy, and can every prompt be read?"""
        self._policy_of_model()
        for prompt in prompts:
            try:
                _requests(prompt, prompt.asked(self.model, max_tokens=1, logprobs=False), "-")
            except BadRequest as error:
                raise CannotCompare(f"prompt {prompt.name!r}: {error.message}") from None

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator["PolicySide", None]:
        """Start the engines and load the model, so that no answer is timed with that."""
        try:
            async with self._gateway.running():
                await self._load()
                yield self
        except EngineStartFailed as error:
            raise CannotCompare(f"policy {self.name}: {error}") from None

    async def ask(self, prompt: Prompt, manner: Manner) -> Answer:
        """Ask once, without log-probabilities where those are refused."""
        body = prompt.asked(self.model, max_tokens=manner.max_tokens, logprobs=manner.logprobs)
        answer = await self._asked(prompt, body, manner)
        if answer.failure is None or answer.failure.kind == "failed" or not manner.logprobs:
            return answer
        plain = prompt.asked(self.model, max_tokens=manner.max_tokens, logprobs=False)
        return answer if plain == body else await self._asked(prompt, plain, manner)

    async def _asked(self, prompt: Prompt, body: dict[str, Any], manner: Manner) -> Answer:
        gateway = self._gateway
        call = Call(
            id=new_call_id(),
            endpoint=prompt.endpoint,
            policy=gateway.policy,
            principal=NOBODY_OUTSIDE,
        )
        try:
            async with asyncio.timeout(manner.timeout_seconds):
                answer = await self._answered(prompt, body, call)
        except TimeoutError:
            message = f"no answer within {manner.timeout_seconds:g} seconds"
            answer = Answer(failure=Failure(kind="failed", code="timeout", message=message))
        # What breaks under one prompt is a finding, and the other prompts are still to be asked.
        except Exception as error:  # noqa: BLE001
            answer = Answer(failure=_failure(error))
        finally:
            await call.resources.aclose()
        target = _target_of(call)
        return msgspec.structs.replace(
            answer,
            target="" if target is None else f"{target.engine}/{target.model}",
            rendered=await self._rendered(call, target),
        )

    async def _answered(self, prompt: Prompt, body: dict[str, Any], call: Call) -> Answer:
        if prompt.endpoint == EMBEDDINGS:
            decoded = decode_body(msgspec.json.encode(body), _EMBEDDING)
            request = embeddings.to_request(decoded, call.id)
            found = await pipeline.embed(self._gateway, call, request)
            return Answer(vectors=found.vectors, prompt_tokens=found.usage.prompt_tokens or None)
        notes = Notes()
        (stream,) = await pipeline.run(self._gateway, call, _requests(prompt, body, call.id))
        async with aclosing(stream) as events:
            async for event in events:
                _note(event, notes)
        return notes.answer()

    async def _rendered(self, call: Call, target: Target | None) -> RenderedPrompt | None:
        """The prompt as the engine made it; None where none is to be had."""
        engine = self._gateway.engines.get(target.engine) if target is not None else None
        if target is None or not call.requests or not isinstance(engine, Renders):
            return None
        try:
            return await engine.render(
                msgspec.structs.replace(call.requests[0], model=target.model)
            )
        except EngineError:
            return None

    def _policy_of_model(self) -> ModelPolicy:
        policy = self._gateway.policy
        found = policy.resolve(self.model)
        if found is None:
            known = [name for name in (*policy.models, *policy.aliases) if "*" not in name]
            raise CannotCompare(
                f"policy {self.name} has no model {self.model!r}{way_out(self.model, known)}"
            )
        return found

    async def _load(self) -> None:
        """Load the model wherever the policy may send it; one place that has it is enough."""
        model = self._policy_of_model()
        failures: list[CannotCompare] = []
        targets = [target for target in model.targets if target.weight > 0 and not target.drain]
        for target in targets:
            name = target.model or model.name
            try:
                await self._gateway.engines[target.engine].load(name)
            except EngineError as error:
                failures.append(await self._not_loaded(target.engine, name, error))
        if failures and len(failures) == len(targets):
            raise failures[0]

    async def _not_loaded(self, engine: str, model: str, error: EngineError) -> CannotCompare:
        if not isinstance(error, ModelNotFound):
            return CannotCompare(
                f"policy {self.name}: engine {engine!r} did not load {model!r}: {error.message}"
            )
        known = [info.name for info in await self._gateway.engines[engine].models()]
        policy = self._gateway.policy
        known += [name for name in (*policy.models, *policy.aliases) if "*" not in name]
        return CannotCompare(
            f"policy {self.name}: engine {engine!r} has no model {model!r}{way_out(model, known)}"
        )


def settings_for(directory: Path, scratch: Path) -> Settings:
    """This machine's models, and for everything that a gateway keeps a place of its own.

    A running gateway's data folder holds more than its ledger (usage that is not yet
    written, budgets), and whoever opens it takes that over.
    """
    environ = {name: os.environ[name] for name in _KEPT_SETTINGS if name in os.environ}
    return msgspec.structs.replace(
        read_settings(environ),
        policy=directory,
        data_dir=scratch,
        pepper=secrets.token_hex(32),
    )


def _asking_once(policy: Policy) -> Policy:
    """The policy without copies to mirrors and without hedges: one prompt is asked once."""
    models = {
        name: msgspec.structs.replace(model, mirror=None, hedge=None)
        for name, model in policy.models.items()
    }
    return msgspec.structs.replace(policy, models=models)


def _requests(prompt: Prompt, body: dict[str, Any], call_id: str) -> list[GenerateRequest]:
    """The body as an endpoint reads it. Raises `BadRequest`."""
    data = msgspec.json.encode(body)
    if prompt.endpoint == EMBEDDINGS:
        embeddings.to_request(decode_body(data, _EMBEDDING), call_id)
        return []
    if prompt.endpoint == CHAT:
        return chat.to_requests(decode_body(data, _CHAT), call_id)
    return completions.to_requests(decode_body(data, _COMPLETION), call_id)


def _note(event: Event, notes: Notes) -> None:
    if isinstance(event, TextDelta):
        notes.text(event.text, event.logprobs)
    elif isinstance(event, ReasoningDelta):
        notes.reasoning(event.text)
    elif isinstance(event, ToolCallDelta):
        notes.tool_call(event.index, event.name, event.arguments)
    elif isinstance(event, Finished):
        notes.finish_reason = event.reason.value
        if not event.usage.is_estimate:
            notes.prompt_tokens = event.usage.prompt_tokens
            notes.completion_tokens = event.usage.completion_tokens


def _failure(error: Exception) -> Failure:
    problem = problem_of(error)
    is_refused = isinstance(error, RequestRefused | BadRequest)
    expected = isinstance(error, EngineError | Refusal)
    return Failure(
        kind="refused" if is_refused else "failed",
        code=problem.code,
        message=problem.message if expected else f"{type(error).__name__}: {error}",
    )


def _target_of(call: Call) -> Target | None:
    """Who answered, else who was asked first."""
    if call.target is not None or call.route is None:
        return call.target
    return next(iter(call.route.targets), None)
