"""Which engine keeps a model's files, and how a long job on them is told.

Beginning of every endpoint that changes models. Such a call goes to the first target
of its name in models.toml whose engine keeps model files (a wildcard's target too), so
that what was pulled is what the name then means. A name that the policy does not know
goes where `["*"]` would, or to the only engine that keeps files.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from msgspec import Struct

from engines.errors import ModelNotFound
from engines.protocol import ModelLibrary, Progress
from gateway.api.admin.admission import entry_of
from gateway.api.framing import NDJSON_TYPE, ndjson
from gateway.api.ollama.lines import error_line
from gateway.api.ollama.model_names import in_ollamas_words, named, public_name
from gateway.api.ollama.opening import opened, read, tell_ignored
from gateway.api.replies import JsonReply, StreamReply
from gateway.call import Call, Target
from gateway.errors import BadRequest, NotFetched, unknown_as
from gateway.gateway import Gateway
from gateway.listed_names import listed_by
from gateway.policy import ModelPolicy

SUCCESS = "success"


class Kept(Struct, frozen=True):
    """Where a model's files are, or are to be."""

    library: ModelLibrary
    engine: str
    model: str  # the engine's own name


async def kept(request: Request[Any, Any, Any], name: str) -> Kept:
    """The place of the model `name`. Raises `Refusal`: `ModelUnknown` for whom it is not for."""
    gateway, call = opened(request)
    found = await place_of(gateway, call, name)
    call.target = Target(found.engine, found.model)
    return found


async def place_of(gateway: Gateway, call: Call, name: str) -> Kept:
    """The same, for one of several names of a call."""
    name = await (call.serving or gateway).listed_name(name)
    call.model = call.policy.resolve(name)
    await gateway.hooks.authorize(call)
    policy = call.model or call.policy.models.get("*")
    if policy is None:
        return await _only(gateway, name)
    for target in policy.targets:
        engine = gateway.engines[target.engine]
        if isinstance(engine, ModelLibrary):
            own = target.model if call.model is not None else None
            return Kept(engine, target.engine, own or name)
    raise BadRequest(_no_files(policy), param="model")


class Transfer(Struct, kw_only=True):
    """The body of a request to pull or push a model."""

    model: str = ""
    name: str = ""
    insecure: bool | None = None  # without effect: plain HTTP is asked for with http://
    stream: bool | None = None


_TRANSFER = msgspec.json.Decoder(Transfer)


async def transferred(request: Request[Any, Any, Any], action: Literal["pull", "push"]) -> ASGIApp:
    """Do it, and tell how far it is; what was sent or fetched stays if the caller leaves."""
    gateway, call = opened(request)
    body = await read(request, _TRANSFER)
    asked_for = named(body.model, body.name)
    if body.insecure and not asked_for.lower().startswith("http://"):
        tell_ignored(call, ["insecure"])
    with in_ollamas_words(asked_for):
        place = await kept(request, await public_name(gateway, call, asked_for))
        await record(gateway, call, action, place)
        library = place.library
        steps = library.pull(place.model) if action == "pull" else library.push(place.model)
        if action == "pull" and call.principal.is_admin:
            steps = _with_reasons(steps)
        return await told(call, asked_for, steps, stream=body.stream)


async def _with_reasons(steps: AsyncGenerator[Progress, None]) -> AsyncGenerator[Progress, None]:
    """The same steps; what is not found is told as the engine tells it, with the way out."""
    async with aclosing(steps):
        try:
            async for step in steps:
                yield step
        except ModelNotFound as error:
            raise NotFetched(error.message, param="model") from error


async def record(
    gateway: Gateway,
    call: Call,
    action: str,
    place: Kept,
    after: Mapping[str, object] | None = None,
) -> None:
    """Note in the audit log what is about to be done. Raises `LedgerUnavailable`."""
    subject = f"{place.engine}/{place.model}"[:300]
    gateway.serving.listed_names.forget()
    await gateway.audit.record(entry_of(call, f"models.{action}", subject, after=after))


async def told(
    call: Call, name: str, steps: AsyncGenerator[Progress, None], *, stream: bool | None
) -> ASGIApp:
    """The answer to a job that takes its time: a line for each step, or the last one.

    What fails before the first step is an HTTP status; a caller who leaves ends the job."""
    call.resources.push_async_callback(steps.aclose)
    with unknown_as(name):
        first = await anext(steps, Progress(status=SUCCESS))
        if stream is False:
            async for _ in steps:
                pass
            answer = msgspec.json.encode({"status": SUCCESS})
            return JsonReply(answer)  # pyright: ignore[reportReturnType]
    call.streams = True
    frames = _lines(call, name, first, steps)
    return StreamReply(frames, content_type=NDJSON_TYPE)  # pyright: ignore[reportReturnType]


async def _lines(
    call: Call, name: str, first: Progress, steps: AsyncGenerator[Progress, None]
) -> AsyncGenerator[bytes, None]:
    yield _line(first)
    try:
        async with aclosing(steps):
            async for step in steps:
                if step.status == SUCCESS and call.model is None:
                    yield _line(Progress(status=f"models.toml has no name that leads to {name!r}"))
                yield _line(step)
    except Exception as error:  # noqa: BLE001 - the status is out: the failure goes in the stream
        yield error_line(call, error)


def _line(step: Progress) -> bytes:
    told: dict[str, object] = {"status": step.status}
    if step.digest:
        told["digest"] = step.digest
    if step.total_bytes:
        told["total"] = step.total_bytes
    if step.done_bytes:
        told["completed"] = step.done_bytes
    return ndjson(msgspec.json.encode(told))


async def _only(gateway: Gateway, name: str) -> Kept:
    libraries = {n: e for n, e in gateway.engines.items() if isinstance(e, ModelLibrary)}
    if len(libraries) == 1:
        ((engine, library),) = libraries.items()
        return Kept(library, engine, await listed_by(library, name) or name)
    if not libraries:
        raise BadRequest("no engine of this gateway keeps model files", param="model")
    raise BadRequest(
        f"several engines keep model files ({', '.join(sorted(libraries))}) and models.toml does "
        f"not say which is meant by {name[:200]!r}",
        param="model",
    )


def _no_files(policy: ModelPolicy) -> str:
    engines = ", ".join(sorted({target.engine for target in policy.targets}))
    return f"{policy.name[:200]!r} is a model of an engine that keeps no model files: {engines}"
